/**
 * `npm run bench -- dispatch`: what the control plane takes to get jobs to workers and what they tell to the record. A service of its own: the control plane as a
 * process, PostgreSQL with durable settings, Redis; workers speak the real protocol, without engines. Arguments after `--`: --only (latency, assignments, metrics,
 * growth; with commas), --rounds, --workers, --seconds, --sizes.
 */
import { parseArgs } from 'node:util';
import { stopOnSignal } from '@tunefleet/testing';
import { measureAssignments } from './dispatch/assignments';
import { measureGrowth } from './dispatch/growth';
import { measureLatency } from './dispatch/latency';
import { measureMetricPoints } from './dispatch/metric-points';
import { BenchService } from './dispatch/service';
import type { Row } from './report/row';
import { countList, counts, someOf } from './report/options';

const PARTS = ['latency', 'assignments', 'metrics', 'growth'] as const;

export async function run(args: string[]): Promise<Row[]> {
  const { values } = parseArgs({
    args,
    options: {
      only: { type: 'string', default: PARTS.join(',') },
      rounds: { type: 'string', default: '200' },
      workers: { type: 'string', default: '200' },
      seconds: { type: 'string', default: '5' },
      sizes: { type: 'string', default: '100,1000,10000,100000' },
    },
  });
  const only = someOf('only', values.only, PARTS);
  const { rounds, workers, seconds } = counts(values, ['rounds', 'workers', 'seconds']);
  const sizes = countList('sizes', values.sizes);
  const measures: Readonly<Record<(typeof PARTS)[number], (service: BenchService) => Promise<Row[]>>> = {
    latency: (service) => measureLatency(service, rounds),
    assignments: (service) => measureAssignments(service, workers),
    metrics: (service) => measureMetricPoints(service, seconds),
    growth: (service) => measureGrowth(service, sizes, Math.ceil(rounds / 10)),
  };
  const rows: Row[] = [];
  // Each on a service of its own: what one leaves behind is not measured by the next.
  for (const part of only) {
    const starting = BenchService.start();
    const release = stopOnSignal(async () => (await starting).stop());
    const service = await starting;
    try {
      rows.push(...(await measures[part](service)));
    } finally {
      await service.stop();
      release();
    }
  }
  return rows;
}
