-- When a task that one replica is to do for all was claimed last.

CREATE TABLE "task_run" (
    "name" TEXT NOT NULL,
    "claimed_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT "task_run_pkey" PRIMARY KEY ("name")
);

-- Below: what Prisma cannot say.

-- Retention looks for what ended long ago.
CREATE INDEX "job_ended" ON "job" ("finished_at") WHERE "finished_at" IS NOT NULL;
