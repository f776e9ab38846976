-- User controls (pause, dependencies, clone and retry), attempt history, worker life.

ALTER TABLE "job"
  ADD COLUMN "after_job_ids" TEXT[] DEFAULT ARRAY[]::TEXT[],
  ADD COLUMN "source_job_id" TEXT,
  ADD COLUMN "source_relation" TEXT,
  ADD COLUMN "stop_reason" TEXT,
  ADD COLUMN "stop_deadline" TIMESTAMPTZ(6);

ALTER TABLE "attempt"
  ADD COLUMN "stop_reason" TEXT,
  ADD COLUMN "step" INTEGER NOT NULL DEFAULT 0,
  ADD COLUMN "stepped_at" TIMESTAMPTZ(6),
  ADD COLUMN "micro_batch_size" INTEGER,
  ADD COLUMN "stuck_at" TIMESTAMPTZ(6);

ALTER TABLE "worker"
  ADD COLUMN "cordon_reason" TEXT,
  ADD COLUMN "uncordoned_at" TIMESTAMPTZ(6),
  ADD COLUMN "drain" TEXT,
  ADD COLUMN "drain_deadline" TIMESTAMPTZ(6);

-- Below: what Prisma cannot say.

-- Whom the end of a job concerns, and which waiting jobs have parents at all.
CREATE INDEX "job_children" ON "job" USING gin ("after_job_ids") WHERE "status" IN ('validating_files', 'queued', 'paused');
-- What a worker has failed at lately.
CREATE INDEX "attempt_failures_by_worker" ON "attempt" ("worker_id", "finished_at") WHERE "outcome" IN ('failed', 'lost');

ALTER TABLE "job" ADD CONSTRAINT "job_stop_reason_known"
  CHECK ("stop_reason" IS NULL OR "stop_reason" IN ('paused', 'resumed', 'preempted', 'drained'));
ALTER TABLE "job" ADD CONSTRAINT "job_stops_only_while_running" CHECK ("stop_reason" IS NULL OR "status" = 'running');
ALTER TABLE "job" ADD CONSTRAINT "job_stop_has_a_deadline" CHECK (("stop_reason" IS NULL) = ("stop_deadline" IS NULL));
ALTER TABLE "job" ADD CONSTRAINT "job_source_relation_known"
  CHECK (("source_job_id" IS NULL) = ("source_relation" IS NULL) AND ("source_relation" IS NULL OR "source_relation" IN ('clone', 'retry')));
ALTER TABLE "worker" ADD CONSTRAINT "worker_drain_known" CHECK ("drain" IS NULL OR "drain" IN ('wait', 'move'));
ALTER TABLE "worker" ADD CONSTRAINT "worker_drains_cordoned" CHECK ("drain" IS NULL OR "cordoned");
