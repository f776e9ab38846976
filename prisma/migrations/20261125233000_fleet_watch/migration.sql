-- When control planes were there to hear workers: leases that ran out while none was are not held against anybody at once.

CREATE TABLE "fleet_watch" (
    "id" INTEGER NOT NULL DEFAULT 1,
    "since" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),
    "last_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT "fleet_watch_pkey" PRIMARY KEY ("id")
);

-- Below: what Prisma cannot say.

ALTER TABLE "fleet_watch" ADD CONSTRAINT "fleet_watch_one" CHECK ("id" = 1);
