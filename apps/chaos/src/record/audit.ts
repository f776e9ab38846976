/**
 * Notes every change of what the rules look at, in a schema of its own beside the record. Changes of one job come in the order of its row's lock, so in the
 * order in which they happened. Installed once, after the migrations; the product knows nothing of it.
 */
export const installAudit = `
create schema chaos;
create table chaos.job_change (id bigserial primary key, job_id text not null, from_status text, to_status text not null, from_epoch int, to_epoch int not null);
create table chaos.attempt_change (
  id bigserial primary key, at timestamptz not null default clock_timestamp(), attempt_id text not null, job_id text not null, worker_id text not null, epoch int not null,
  from_status text, to_status text not null, outcome text, lease_expires_at timestamptz not null, worker_is_new boolean not null);
create table chaos.metric_change (id bigserial primary key, job_id text not null, name text not null, step int not null, from_value float8 not null, to_value float8 not null);

create function chaos.job_made() returns trigger language plpgsql as $$ begin
  insert into chaos.job_change (job_id, to_status, to_epoch) values (new.id, new.status, new.epoch);
  return null;
end $$;
create function chaos.job_changed() returns trigger language plpgsql as $$ begin
  insert into chaos.job_change (job_id, from_status, to_status, from_epoch, to_epoch) values (new.id, old.status, new.status, old.epoch, new.epoch);
  return null;
end $$;
create trigger chaos_job_made after insert on job for each row execute function chaos.job_made();
create trigger chaos_job_changed after update on job for each row
  when (old.status is distinct from new.status or old.epoch is distinct from new.epoch) execute function chaos.job_changed();

create function chaos.attempt_made() returns trigger language plpgsql as $$ begin
  insert into chaos.attempt_change (attempt_id, job_id, worker_id, epoch, to_status, outcome, lease_expires_at, worker_is_new)
  values (new.id, new.job_id, new.worker_id, new.epoch, new.status, new.outcome, new.lease_expires_at, false);
  return null;
end $$;
create function chaos.attempt_changed() returns trigger language plpgsql as $$ begin
  insert into chaos.attempt_change (attempt_id, job_id, worker_id, epoch, from_status, to_status, outcome, lease_expires_at, worker_is_new)
  values (new.id, new.job_id, new.worker_id, new.epoch, old.status, new.status, new.outcome, new.lease_expires_at,
    (select boot_id <> new.worker_boot_id from worker where id = new.worker_id));
  return null;
end $$;
create trigger chaos_attempt_made after insert on attempt for each row execute function chaos.attempt_made();
create trigger chaos_attempt_changed after update on attempt for each row
  when (old.status is distinct from new.status or old.outcome is distinct from new.outcome or old.epoch is distinct from new.epoch) execute function chaos.attempt_changed();

create function chaos.metric_changed() returns trigger language plpgsql as $$ begin
  insert into chaos.metric_change (job_id, name, step, from_value, to_value) values (new.job_id, new.name, new.step, old.value, new.value);
  return null;
end $$;
create trigger chaos_metric_changed after update on metric_point for each row
  when (old.value is distinct from new.value and new.name <> 'tokens_per_second') execute function chaos.metric_changed();
`;
