-- Several jobs on one worker: its slots, which of them an attempt holds, which jobs may run beside each other.

ALTER TABLE "team_quota" ADD COLUMN "shares_workers" BOOLEAN NOT NULL DEFAULT false;

ALTER TABLE "job"
  ADD COLUMN "share_key" TEXT,
  ADD COLUMN "shared_memory_bytes" BIGINT;

ALTER TABLE "attempt" ADD COLUMN "slot" INTEGER NOT NULL DEFAULT 0;

ALTER TABLE "worker" ADD COLUMN "slots" INTEGER NOT NULL DEFAULT 1;

-- Below: what Prisma cannot say.

-- At most one live attempt in each of a worker's slots.
DROP INDEX "attempt_one_live_per_worker";
CREATE UNIQUE INDEX "attempt_one_live_per_slot" ON "attempt" ("worker_id", "slot") WHERE "status" <> 'finished';

ALTER TABLE "worker" ADD CONSTRAINT "worker_slots_positive" CHECK ("slots" >= 1);
ALTER TABLE "attempt" ADD CONSTRAINT "attempt_slot_not_negative" CHECK ("slot" >= 0);
-- Without it nobody could tell whether the job fits beside others.
ALTER TABLE "job" ADD CONSTRAINT "job_shares_with_known_memory" CHECK ("share_key" IS NULL OR "shared_memory_bytes" >= 0);
