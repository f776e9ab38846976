-- CreateSchema
CREATE SCHEMA IF NOT EXISTS "public";

-- CreateTable
CREATE TABLE "team" (
    "id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT "team_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "file" (
    "id" TEXT NOT NULL,
    "team_id" TEXT NOT NULL,
    "filename" TEXT NOT NULL,
    "purpose" TEXT NOT NULL,
    "bytes" BIGINT NOT NULL,
    "sha256" TEXT NOT NULL,
    "status" TEXT NOT NULL DEFAULT 'uploaded',
    "status_details" TEXT,
    "expires_at" TIMESTAMPTZ(6),
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),
    "deleted_at" TIMESTAMPTZ(6),

    CONSTRAINT "file_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "dataset_version" (
    "id" TEXT NOT NULL,
    "team_id" TEXT NOT NULL,
    "content_hash" TEXT NOT NULL,
    "format" TEXT NOT NULL,
    "row_count" INTEGER NOT NULL,
    "summary" JSONB NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT "dataset_version_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "job" (
    "id" TEXT NOT NULL,
    "team_id" TEXT NOT NULL,
    "kind" TEXT NOT NULL,
    "schema_version" INTEGER NOT NULL DEFAULT 1,
    "status" TEXT NOT NULL,
    "priority" INTEGER NOT NULL DEFAULT 0,
    "spec" JSONB NOT NULL,
    "worker_spec" JSONB,
    "base_model" TEXT NOT NULL,
    "metadata" JSONB,
    "idempotency_key" TEXT,
    "idempotency_hash" TEXT,
    "training_dataset_id" TEXT,
    "validation_dataset_id" TEXT,
    "memory_bytes_estimate" BIGINT,
    "epoch" INTEGER NOT NULL DEFAULT 0,
    "infra_failures" INTEGER NOT NULL DEFAULT 0,
    "resource_failures" INTEGER NOT NULL DEFAULT 0,
    "not_before" TIMESTAMPTZ(6),
    "waiting_reason" TEXT,
    "step" INTEGER NOT NULL DEFAULT 0,
    "total_steps" INTEGER,
    "phase" TEXT,
    "tokens_per_second" DOUBLE PRECISION,
    "estimated_finish" TIMESTAMPTZ(6),
    "error" JSONB,
    "result" JSONB,
    "result_file_ids" TEXT[] DEFAULT ARRAY[]::TEXT[],
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),
    "queued_at" TIMESTAMPTZ(6),
    "started_at" TIMESTAMPTZ(6),
    "finished_at" TIMESTAMPTZ(6),

    CONSTRAINT "job_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "attempt" (
    "id" TEXT NOT NULL,
    "job_id" TEXT NOT NULL,
    "epoch" INTEGER NOT NULL,
    "worker_id" TEXT NOT NULL,
    "worker_boot_id" TEXT NOT NULL,
    "status" TEXT NOT NULL DEFAULT 'assigned',
    "outcome" TEXT,
    "lease_expires_at" TIMESTAMPTZ(6) NOT NULL,
    "resume_checkpoint_id" TEXT,
    "last_seq" BIGINT NOT NULL DEFAULT 0,
    "failure" JSONB,
    "assigned_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),
    "acknowledged_at" TIMESTAMPTZ(6),
    "finished_at" TIMESTAMPTZ(6),

    CONSTRAINT "attempt_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "checkpoint" (
    "id" TEXT NOT NULL,
    "job_id" TEXT NOT NULL,
    "attempt_id" TEXT NOT NULL,
    "epoch" INTEGER NOT NULL,
    "step" INTEGER NOT NULL,
    "artifacts" JSONB NOT NULL,
    "metrics" JSONB NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT "checkpoint_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "metric_point" (
    "job_id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "step" INTEGER NOT NULL,
    "value" DOUBLE PRECISION NOT NULL,
    "epoch" INTEGER NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT "metric_point_pkey" PRIMARY KEY ("job_id","name","step")
);

-- CreateTable
CREATE TABLE "job_event" (
    "id" BIGSERIAL NOT NULL,
    "job_id" TEXT NOT NULL,
    "level" TEXT NOT NULL,
    "type" TEXT NOT NULL,
    "message" TEXT NOT NULL,
    "data" JSONB,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT "job_event_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "adapter" (
    "id" TEXT NOT NULL,
    "team_id" TEXT NOT NULL,
    "job_id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "base_model" TEXT NOT NULL,
    "base_revision" TEXT NOT NULL,
    "tuner_kind" TEXT NOT NULL,
    "artifacts" JSONB NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),
    "deleted_at" TIMESTAMPTZ(6),

    CONSTRAINT "adapter_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "worker" (
    "id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "boot_id" TEXT NOT NULL,
    "status" TEXT NOT NULL,
    "cordoned" BOOLEAN NOT NULL DEFAULT false,
    "version" TEXT NOT NULL,
    "device" JSONB NOT NULL,
    "labels" JSONB NOT NULL,
    "job_kinds" TEXT[],
    "models_on_disk" TEXT[] DEFAULT ARRAY[]::TEXT[],
    "model_in_memory" TEXT,
    "credit" INTEGER NOT NULL DEFAULT 0,
    "session_id" TEXT,
    "replica_id" TEXT,
    "last_seen_at" TIMESTAMPTZ(6) NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT "worker_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "outbox" (
    "id" TEXT NOT NULL,
    "queue" TEXT NOT NULL,
    "message_id" TEXT NOT NULL,
    "payload" JSONB NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),
    "published_at" TIMESTAMPTZ(6),

    CONSTRAINT "outbox_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "team_name_key" ON "team"("name");

-- CreateIndex
CREATE INDEX "file_team_id_created_at_id_idx" ON "file"("team_id", "created_at", "id");

-- CreateIndex
CREATE UNIQUE INDEX "dataset_version_team_id_content_hash_format_key" ON "dataset_version"("team_id", "content_hash", "format");

-- CreateIndex
CREATE INDEX "job_team_id_kind_created_at_id_idx" ON "job"("team_id", "kind", "created_at", "id");

-- CreateIndex
CREATE UNIQUE INDEX "job_team_id_idempotency_key_key" ON "job"("team_id", "idempotency_key");

-- CreateIndex
CREATE INDEX "attempt_job_id_assigned_at_idx" ON "attempt"("job_id", "assigned_at");

-- CreateIndex
CREATE UNIQUE INDEX "attempt_job_id_epoch_key" ON "attempt"("job_id", "epoch");

-- CreateIndex
CREATE UNIQUE INDEX "checkpoint_job_id_step_key" ON "checkpoint"("job_id", "step");

-- CreateIndex
CREATE INDEX "job_event_job_id_id_idx" ON "job_event"("job_id", "id");

-- CreateIndex
CREATE UNIQUE INDEX "adapter_job_id_key" ON "adapter"("job_id");

-- CreateIndex
CREATE UNIQUE INDEX "adapter_name_key" ON "adapter"("name");

-- CreateIndex
CREATE UNIQUE INDEX "outbox_message_id_key" ON "outbox"("message_id");

-- AddForeignKey
ALTER TABLE "file" ADD CONSTRAINT "file_team_id_fkey" FOREIGN KEY ("team_id") REFERENCES "team"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "job" ADD CONSTRAINT "job_team_id_fkey" FOREIGN KEY ("team_id") REFERENCES "team"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "attempt" ADD CONSTRAINT "attempt_job_id_fkey" FOREIGN KEY ("job_id") REFERENCES "job"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "attempt" ADD CONSTRAINT "attempt_worker_id_fkey" FOREIGN KEY ("worker_id") REFERENCES "worker"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "checkpoint" ADD CONSTRAINT "checkpoint_job_id_fkey" FOREIGN KEY ("job_id") REFERENCES "job"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "checkpoint" ADD CONSTRAINT "checkpoint_attempt_id_fkey" FOREIGN KEY ("attempt_id") REFERENCES "attempt"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "metric_point" ADD CONSTRAINT "metric_point_job_id_fkey" FOREIGN KEY ("job_id") REFERENCES "job"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "job_event" ADD CONSTRAINT "job_event_job_id_fkey" FOREIGN KEY ("job_id") REFERENCES "job"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "adapter" ADD CONSTRAINT "adapter_team_id_fkey" FOREIGN KEY ("team_id") REFERENCES "team"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "adapter" ADD CONSTRAINT "adapter_job_id_fkey" FOREIGN KEY ("job_id") REFERENCES "job"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- Below: what Prisma cannot say. The invariants of the scheduler hold here even against a bug in the code above.

-- At most one live attempt per job, and per worker.
CREATE UNIQUE INDEX "attempt_one_live_per_job" ON "attempt" ("job_id") WHERE "status" <> 'finished';
CREATE UNIQUE INDEX "attempt_one_live_per_worker" ON "attempt" ("worker_id") WHERE "status" <> 'finished';

-- What the loops scan.
CREATE INDEX "job_queue_order" ON "job" ("priority" DESC, "queued_at", "id") WHERE "status" = 'queued';
CREATE INDEX "job_unvalidated" ON "job" ("created_at") WHERE "status" = 'validating_files';
CREATE INDEX "attempt_live_by_lease" ON "attempt" ("lease_expires_at") WHERE "status" <> 'finished';
CREATE INDEX "outbox_unpublished" ON "outbox" ("created_at", "id") WHERE "published_at" IS NULL;
CREATE INDEX "outbox_published" ON "outbox" ("published_at") WHERE "published_at" IS NOT NULL;

ALTER TABLE "file" ADD CONSTRAINT "file_status_known" CHECK ("status" IN ('uploaded', 'processed', 'error'));
ALTER TABLE "job" ADD CONSTRAINT "job_status_known"
  CHECK ("status" IN ('validating_files', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled'));
ALTER TABLE "job" ADD CONSTRAINT "job_finished_when_terminal"
  CHECK (("status" IN ('succeeded', 'failed', 'cancelled')) = ("finished_at" IS NOT NULL));
ALTER TABLE "job" ADD CONSTRAINT "job_runs_with_a_spec"
  CHECK ("status" NOT IN ('queued', 'running') OR ("worker_spec" IS NOT NULL AND "queued_at" IS NOT NULL));
ALTER TABLE "attempt" ADD CONSTRAINT "attempt_status_known" CHECK ("status" IN ('assigned', 'running', 'finished'));
ALTER TABLE "attempt" ADD CONSTRAINT "attempt_outcome_known"
  CHECK ("outcome" IS NULL OR "outcome" IN ('succeeded', 'failed', 'stopped', 'lost', 'revoked'));
ALTER TABLE "attempt" ADD CONSTRAINT "attempt_outcome_when_finished"
  CHECK (("status" = 'finished') = ("outcome" IS NOT NULL) AND ("status" = 'finished') = ("finished_at" IS NOT NULL));
ALTER TABLE "job_event" ADD CONSTRAINT "job_event_level_known" CHECK ("level" IN ('info', 'warn', 'error'));
ALTER TABLE "job_event" ADD CONSTRAINT "job_event_type_known" CHECK ("type" IN ('message', 'metrics'));
ALTER TABLE "worker" ADD CONSTRAINT "worker_status_known" CHECK ("status" IN ('online', 'suspect', 'offline'));
ALTER TABLE "worker" ADD CONSTRAINT "worker_credit_not_negative" CHECK ("credit" >= 0);

-- A terminal status is written once; an epoch never goes back.
CREATE FUNCTION "job_guard"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.status IN ('succeeded', 'failed', 'cancelled') AND NEW.status <> OLD.status THEN
    RAISE EXCEPTION 'job % is % and cannot become %', OLD.id, OLD.status, NEW.status USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.epoch < OLD.epoch THEN
    RAISE EXCEPTION 'the epoch of job % cannot go from % to %', OLD.id, OLD.epoch, NEW.epoch USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER "job_guard" BEFORE UPDATE OF "status", "epoch" ON "job" FOR EACH ROW EXECUTE FUNCTION "job_guard"();

CREATE FUNCTION "attempt_guard"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.status = 'finished' AND (NEW.status <> OLD.status OR NEW.outcome <> OLD.outcome) THEN
    RAISE EXCEPTION 'attempt % has finished (%) and cannot change', OLD.id, OLD.outcome USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER "attempt_guard" BEFORE UPDATE OF "status", "outcome" ON "attempt" FOR EACH ROW EXECUTE FUNCTION "attempt_guard"();
