import type { JobStreamMessage, JobSummary } from '@tunefleet/contracts';
import type { TunefleetClient } from '@tunefleet/client-sdk';
import { errorCode, sleep } from '@tunefleet/foundation';

const POLL_MS = 1_000;
const METRICS_PAGE = 1_000;

/**
 * A job's messages until its end: from the event stream, or, when that cannot be had (a proxy that does not pass streams, a server
 * that restarts for long), by asking again and again. Ends quietly when `signal` aborts.
 * @throws what no other way of asking can mend: an unknown job, a refused key
 */
export async function* jobMessages(client: TunefleetClient, jobId: string, signal: AbortSignal): AsyncGenerator<JobStreamMessage> {
  let lastStep = -1;
  try {
    for await (const message of client.jobs.stream(jobId, { signal })) {
      if (message.type === 'metrics') lastStep = message.data.step;
      yield message;
      if (message.type === 'end') return;
    }
  } catch (error) {
    if (signal.aborted) return;
    if (errorCode(error) !== 'unavailable') throw error;
  }
  if (!signal.aborted) yield* polledMessages(client, jobId, lastStep, signal);
}

async function* polledMessages(client: TunefleetClient, jobId: string, sinceStep: number, signal: AbortSignal): AsyncGenerator<JobStreamMessage> {
  for (let lastStep = sinceStep; !signal.aborted; await sleep(POLL_MS, signal)) {
    // The state first: metrics read after a final state are complete.
    const job = await client.jobs.get(jobId);
    for (const metrics of await metricsSince(client, jobId, lastStep)) {
      lastStep = metrics.data.step;
      yield metrics;
    }
    yield { type: 'job', data: job };
    if (isFinal(job.status)) {
      yield { type: 'end', data: { status: job.status } };
      return;
    }
  }
}

type MetricsMessage = Extract<JobStreamMessage, { type: 'metrics' }>;

async function metricsSince(client: TunefleetClient, jobId: string, sinceStep: number): Promise<MetricsMessage[]> {
  const bySteps = new Map<number, Record<string, number>>();
  for (let since = sinceStep; ; ) {
    const page = await client.jobs.metrics(jobId, { limit: METRICS_PAGE, ...(since >= 0 ? { sinceStep: since } : {}) });
    for (const point of page.data) {
      bySteps.set(point.step, { ...bySteps.get(point.step), [point.name]: point.value });
      since = Math.max(since, point.step);
    }
    if (!page.has_more || page.data.length === 0) break;
  }
  return [...bySteps].sort(([a], [b]) => a - b).map(([step, values]) => ({ type: 'metrics', data: { step, values } }));
}

export function isFinal(status: JobSummary['status']): boolean {
  return status === 'succeeded' || status === 'failed' || status === 'cancelled';
}
