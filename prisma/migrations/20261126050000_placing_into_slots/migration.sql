-- Who may run beside whom on one worker, and who makes room together.

-- All jobs of a worker make room for a job at once; each has a slot of its own.
DROP INDEX "attempt_one_preempted_per_job";
CREATE UNIQUE INDEX "attempt_one_preempted_per_job_and_slot" ON "attempt" ("preempted_for_job_id", "slot") WHERE "preempted_for_job_id" IS NOT NULL AND "status" <> 'finished';

-- Live attempts of a worker are of jobs with one share key and within its slots. Volatile, so that it sees what was committed until now, not until the
-- statement began; whoever places holds the worker's lock.
CREATE FUNCTION "attempt_sharing_guard"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (
    SELECT 1 FROM attempt a JOIN job there ON there.id = a.job_id JOIN job new_one ON new_one.id = NEW.job_id
    WHERE a.worker_id = NEW.worker_id AND a.status <> 'finished' AND (new_one.share_key IS NULL OR there.share_key IS DISTINCT FROM new_one.share_key)
  ) THEN
    RAISE EXCEPTION 'worker % holds an attempt that may not share it with job %', NEW.worker_id, NEW.job_id USING ERRCODE = 'unique_violation', CONSTRAINT = 'attempt_shares_worker';
  END IF;
  IF NEW.slot > 0 AND NEW.slot >= (SELECT slots FROM worker WHERE id = NEW.worker_id) THEN
    RAISE EXCEPTION 'worker % has no slot %', NEW.worker_id, NEW.slot USING ERRCODE = 'check_violation', CONSTRAINT = 'attempt_slot_of_worker';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER "attempt_sharing_guard" BEFORE INSERT ON "attempt" FOR EACH ROW EXECUTE FUNCTION "attempt_sharing_guard"();
