import type { MetricList } from '@tunefleet/contracts';
import type { MetricPointRecord, RecordStore } from '@tunefleet/ports';

export interface MetricQuery {
  readonly name?: string | undefined;
  readonly since_step?: number | undefined;
  readonly limit: number;
}

/** Points a step may have, when a page's last step must be completed. */
const STEP_POINTS_MAX = 10_000;

/** A page of whole steps: whoever goes on behind its last step misses nothing. */
export async function metricPage(records: Pick<RecordStore, 'listMetrics'>, jobId: string, query: MetricQuery): Promise<MetricList> {
  const { limit, name, since_step: since } = query;
  const filter = { ...(name === undefined ? {} : { name }), ...(since === undefined ? {} : { sinceStep: since }) };
  const points = await records.listMetrics(jobId, { ...filter, limit: limit + 1 });
  if (points.length <= limit) return list(points, false);
  const cut = points[limit]?.step;
  const whole = points.filter((point) => point.step !== cut);
  if (whole.length > 0) return list(whole, true);
  // One step alone is larger than the page: it comes whole all the same.
  const more = await records.listMetrics(jobId, { ...filter, limit: limit + STEP_POINTS_MAX });
  return list(
    more.filter((point) => point.step === cut),
    more.some((point) => point.step !== cut),
  );
}

function list(points: readonly MetricPointRecord[], hasMore: boolean): MetricList {
  return { object: 'list', data: points.map(({ name, step, value }) => ({ name, step, value })), has_more: hasMore };
}
