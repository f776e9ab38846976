import type { Sabotage } from './race';

/** Stores that break one rule each, a pair that meets it, and what the rules have to say of it. */
export interface BrokenStore {
  readonly name: string;
  readonly pair: readonly [string, string];
  readonly seen: RegExp;
  readonly sabotage: Sabotage;
}

export const brokenStores: readonly BrokenStore[] = [
  {
    name: 'stores what a worker tells of an epoch that is over',
    pair: ['report', 'cancel'],
    seen: /was stored when the job was/,
    sabotage: ({ fleet }, client) => {
      fleet.appendEvents = async ({ jobId, attemptId, epoch }, events) => {
        for (const event of events) {
          if (event.type === 'metrics') await client.query(`insert into metric_point (job_id, name, step, value, epoch) values ($1, 'train_loss', $2, $3, $4) on conflict do nothing`, [jobId, event.step, event.values['train_loss'], epoch]);
        }
        const lastSeq = events.at(-1)?.seq ?? 0;
        await client.query('update attempt set last_seq = greatest(last_seq, $2) where id = $1', [attemptId, lastSeq]);
        return { result: 'applied', lastSeq };
      };
    },
  },
  {
    name: 'renews without looking at the epoch',
    pair: ['renew', 'complete'],
    seen: /had finished and was changed/,
    sabotage: ({ fleet }, client) => {
      fleet.renewLease = async ({ attemptId }) => {
        await client.query(`update attempt set lease_expires_at = clock_timestamp() + interval '10 min' where id = $1`, [attemptId]);
        return 'applied';
      };
    },
  },
  {
    name: 'cancels without a new epoch',
    pair: ['cancel', 'report'],
    seen: /cancelled with an open attempt of its epoch/,
    sabotage: ({ records }, client) => {
      records.cancelJob = async (teamId, id) => {
        await client.query(`update job set status = 'cancelled', finished_at = clock_timestamp(), stop_reason = null, stop_deadline = null where id = $1 and status not in ('succeeded', 'failed', 'cancelled')`, [id]);
        return records.getJob(teamId, id);
      };
    },
  },
  {
    name: 'places what was queued when it looked',
    pair: ['assign', 'pause'],
    seen: /went from paused to running|was changed to running/,
    sabotage: ({ fleet }, client) => {
      fleet.place = async ({ jobId, workerId, workerBootId }) => {
        const { rows } = await client.query<{ epoch: number; status: string }>('select epoch, status from job where id = $1', [jobId]);
        if (rows[0]?.status !== 'queued') return null;
        const epoch = rows[0].epoch + 1;
        const id = `att-${jobId}-${epoch}`;
        await client.query('begin');
        try {
          await client.query(`update job set status = 'running', epoch = $2 where id = $1`, [jobId, epoch]);
          await client.query(`insert into attempt (id, job_id, epoch, worker_id, worker_boot_id, lease_expires_at) values ($1, $2, $3, $4, $5, clock_timestamp() + interval '10 min')`, [id, jobId, epoch, workerId, workerBootId]);
          await client.query('commit');
        } catch {
          await client.query('rollback');
          return null;
        }
        return (await fleet.listLiveAttempts(workerId))[0] ?? null;
      };
    },
  },
  {
    name: 'looks at who is there before it waits for the worker',
    pair: ['join', 'join'],
    seen: /came to one that it was not to run beside/,
    sabotage: ({ fleet }, client) => {
      fleet.place = async ({ jobId, jobEpoch, workerId, workerBootId, besideJobIds }) => {
        const { rows } = await client.query<{ job_id: string }>(`select job_id from attempt where worker_id = $1 and status <> 'finished'`, [workerId]);
        if (rows.some(({ job_id }) => !besideJobIds.includes(job_id))) return null;
        await client.query('begin');
        try {
          await client.query('select 1 from worker where id = $1 for update', [workerId]);
          const { rowCount } = await client.query(`update job set status = 'running', epoch = epoch + 1 where id = $1 and status = 'queued' and epoch = $2`, [jobId, jobEpoch]);
          if (rowCount === 1) {
            const slot = `(select min(n) from generate_series(0, 1) n where not exists (select 1 from attempt where worker_id = $3 and slot = n and status <> 'finished'))`;
            await client.query(`insert into attempt (id, job_id, epoch, worker_id, worker_boot_id, slot, lease_expires_at) select $1, $2, $5, $3, $4, ${slot}, clock_timestamp() + interval '10 min'`, [`att-${jobId}`, jobId, workerId, workerBootId, jobEpoch + 1]);
          }
          await client.query('commit');
        } catch {
          await client.query('rollback');
          return null;
        }
        return (await fleet.listLiveAttempts(workerId)).find((attempt) => attempt.jobId === jobId) ?? null;
      };
    },
  },
  {
    name: 'asks for room whoever has come meanwhile',
    pair: ['preempt', 'join'],
    seen: /came to those that make room|was not asked for room/,
    sabotage: ({ fleet }, client) => {
      fleet.preempt = async ({ victims: [victim], forJobId, deadlineMs }) => {
        if (victim === undefined || (await fleet.requestStop(victim, 'preempted', deadlineMs)) === 'stale') return 'stale';
        await client.query(`update attempt set preempted_for_job_id = $2 where id = $1 and status <> 'finished'`, [victim.attemptId, forJobId]);
        return 'applied';
      };
    },
  },
  {
    name: 'tells losers that they won',
    pair: ['complete', 'cancel'],
    seen: /complete .*was told applied, and the record does not show it|was applied for epoch/,
    sabotage: ({ fleet }) => {
      const { complete } = fleet;
      fleet.complete = async (key, completion) => {
        await complete(key, completion);
        return 'applied';
      };
    },
  },
  {
    name: 'stores a batch that comes again again',
    pair: ['report', 'report'],
    seen: /events went back/,
    sabotage: ({ fleet }, client) => {
      const { appendEvents } = fleet;
      fleet.appendEvents = async (key, events) => {
        await client.query(`update attempt set last_seq = $2 where id = $1 and status <> 'finished'`, [key.attemptId, (events[0]?.seq ?? 1) - 1]);
        return appendEvents(key, events);
      };
    },
  },
  {
    name: 'forgets the jobs that wait for one that fails',
    pair: ['fail', 'depend'],
    seen: /waits for a job that will never succeed/,
    sabotage: ({ fleet }, client) => {
      fleet.endAttempt = async ({ attemptId, jobId, epoch }) => {
        await client.query('begin');
        const { rowCount } = await client.query(`update job set status = 'failed', error = '{}', finished_at = clock_timestamp(), stop_reason = null, stop_deadline = null where id = $1 and status = 'running' and epoch = $2`, [jobId, epoch]);
        if (rowCount === 1) {
          await client.query(`update attempt set status = 'finished', outcome = 'failed', finished_at = clock_timestamp() where id = $1`, [attemptId]);
          await client.query(`insert into team_usage (team_id, decayed_gpu_seconds, decayed_at, month, month_gpu_seconds) select team_id, 0, clock_timestamp(), now(), 0 from job where id = $1 on conflict (team_id) do update set decayed_at = excluded.decayed_at`, [jobId]);
        }
        await client.query('commit');
        return rowCount === 1 ? 'applied' : 'stale';
      };
    },
  },
  {
    name: 'charges whenever it is told of an end',
    pair: ['hand back', 'hand back'],
    seen: /usage: 0 attempts ended and 1 were charged|was told stale and wrote/,
    sabotage: ({ fleet }, client) => {
      const { endAttempt } = fleet;
      fleet.endAttempt = async (key, end) => {
        const result = await endAttempt(key, end);
        await client.query('update team_usage set month_gpu_seconds = month_gpu_seconds + 1 where team_id = (select team_id from job where id = $1)', [key.jobId]);
        return result;
      };
    },
  },
];
