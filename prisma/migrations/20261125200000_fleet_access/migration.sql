-- Who may speak for a worker: join tokens, and the credential each worker got for one.

CREATE TABLE "join_token" (
    "id" TEXT NOT NULL,
    "secret_hash" TEXT NOT NULL,
    "note" TEXT,
    "max_uses" INTEGER,
    "uses" INTEGER NOT NULL DEFAULT 0,
    "name_pattern" TEXT,
    "labels" JSONB,
    "expires_at" TIMESTAMPTZ(6),
    "revoked_at" TIMESTAMPTZ(6),
    "last_used_at" TIMESTAMPTZ(6),
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT "join_token_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "worker_credential" (
    "worker_id" TEXT NOT NULL,
    "secret_hash" TEXT NOT NULL,
    "join_token_id" TEXT,
    "name_pattern" TEXT,
    "labels" JSONB,
    "revoked_at" TIMESTAMPTZ(6),
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT "worker_credential_pkey" PRIMARY KEY ("worker_id")
);

CREATE TABLE "job_upload" (
    "job_id" TEXT NOT NULL,
    "sha256" TEXT NOT NULL,
    "bytes" BIGINT NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT "job_upload_pkey" PRIMARY KEY ("job_id","sha256")
);

ALTER TABLE "job_upload" ADD CONSTRAINT "job_upload_job_id_fkey" FOREIGN KEY ("job_id") REFERENCES "job"("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "worker_credential" ADD CONSTRAINT "worker_credential_join_token_id_fkey" FOREIGN KEY ("join_token_id") REFERENCES "join_token"("id") ON DELETE SET NULL ON UPDATE CASCADE;

-- Below: what Prisma cannot say.

ALTER TABLE "join_token" ADD CONSTRAINT "join_token_uses_bounded" CHECK ("uses" >= 0 AND ("max_uses" IS NULL OR "uses" <= "max_uses"));
