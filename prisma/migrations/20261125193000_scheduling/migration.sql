-- Scheduling between teams: weights, quotas, usage, measured memory and time, what waiting jobs are told, preemption.

ALTER TABLE "job"
  ADD COLUMN "worker_selector" JSONB NOT NULL DEFAULT '{}',
  ADD COLUMN "weight_bytes" BIGINT,
  ADD COLUMN "shape" TEXT,
  ADD COLUMN "memory_model" JSONB,
  ADD COLUMN "waiting_code" TEXT,
  ADD COLUMN "queue_position" INTEGER,
  ADD COLUMN "estimated_start" TIMESTAMPTZ(6),
  ADD COLUMN "locality_since" TIMESTAMPTZ(6),
  ADD COLUMN "preemptions" INTEGER NOT NULL DEFAULT 0;

ALTER TABLE "attempt" ADD COLUMN "preempted_for_job_id" TEXT;

CREATE TABLE "team_quota" (
    "team_id" TEXT NOT NULL,
    "weight" DOUBLE PRECISION NOT NULL DEFAULT 1,
    "running_jobs" INTEGER,
    "gpu_hours_per_month" DOUBLE PRECISION,
    "queued_jobs" INTEGER,
    "storage_bytes" BIGINT,
    CONSTRAINT "team_quota_pkey" PRIMARY KEY ("team_id")
);

CREATE TABLE "team_usage" (
    "team_id" TEXT NOT NULL,
    "decayed_gpu_seconds" DOUBLE PRECISION NOT NULL,
    "decayed_at" TIMESTAMPTZ(6) NOT NULL,
    "month" DATE NOT NULL,
    "month_gpu_seconds" DOUBLE PRECISION NOT NULL,
    CONSTRAINT "team_usage_pkey" PRIMARY KEY ("team_id")
);

CREATE TABLE "measurement" (
    "shape" TEXT NOT NULL,
    "kind" TEXT NOT NULL,
    "base_model" TEXT NOT NULL,
    "memory_ratio" DOUBLE PRECISION,
    "seconds_per_step" DOUBLE PRECISION,
    "samples" INTEGER NOT NULL DEFAULT 0,
    "updated_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT "measurement_pkey" PRIMARY KEY ("shape")
);
CREATE INDEX "measurement_kind_base_model_idx" ON "measurement"("kind", "base_model");

ALTER TABLE "team_quota" ADD CONSTRAINT "team_quota_team_id_fkey" FOREIGN KEY ("team_id") REFERENCES "team"("id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "team_usage" ADD CONSTRAINT "team_usage_team_id_fkey" FOREIGN KEY ("team_id") REFERENCES "team"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- Below: what Prisma cannot say.

-- The scheduler reads the head of every team's queue, not of one queue for all.
CREATE INDEX "job_team_queue_order" ON "job" ("team_id", "priority" DESC, "queued_at", "id") WHERE "status" = 'queued';
-- When a worker became idle.
CREATE INDEX "attempt_ended_by_worker" ON "attempt" ("worker_id", "finished_at" DESC) WHERE "status" = 'finished';
-- At most one worker is being freed for a job.
CREATE UNIQUE INDEX "attempt_one_preempted_per_job" ON "attempt" ("preempted_for_job_id") WHERE "preempted_for_job_id" IS NOT NULL AND "status" <> 'finished';

ALTER TABLE "team_quota" ADD CONSTRAINT "team_quota_weight_positive" CHECK ("weight" > 0);
ALTER TABLE "team_quota" ADD CONSTRAINT "team_quota_not_negative"
  CHECK (least("running_jobs", "queued_jobs", "storage_bytes") >= 0 AND ("gpu_hours_per_month" IS NULL OR "gpu_hours_per_month" >= 0));
ALTER TABLE "job" ADD CONSTRAINT "job_preemptions_not_negative" CHECK ("preemptions" >= 0);
