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
  const only = values.only.split(',');
  const wrong = only.find((part) => !PARTS.some((known) => known === part));
  if (wrong !== undefined) throw new Error(`--only names "${wrong}"; there are ${PARTS.join(', ')}`);
  const measures: Readonly<Record<(typeof PARTS)[number], (service: BenchService) => Promise<Row[]>>> = {
    latency: (service) => measureLatency(service, positive('rounds', values.rounds)),
    assignments: (service) => measureAssignments(service, positive('workers', values.workers)),
    metrics: (service) => measureMetricPoints(service, positive('seconds', values.seconds)),
    growth: (service) => measureGrowth(service, values.sizes.split(',').map((size) => positive('sizes', size)), Math.ceil(positive('rounds', values.rounds) / 10)),
  };
  const rows: Row[] = [];
  // Each on a service of its own: what one leaves behind is not measured by the next.
  for (const part of PARTS.filter((part) => only.includes(part))) {
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

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} is "${text}"; it must be a positive whole number`);
  return value;
}
