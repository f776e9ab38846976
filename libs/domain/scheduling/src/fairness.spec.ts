// The pure core on a virtual clock, with jobs whose length nobody knows beforehand. All random choices come from a seed.
import { job, randomSource, team, worker } from './testing/builders';
import { simulate, type SimulatedJob } from './testing/simulate';
import { USAGE_HALF_LIFE_MS } from './team-shares';

const HOUR_MS = 3_600_000;
const workers = (count: number) => Array.from({ length: count }, (_, index) => worker(`w${index}`));

/** A team's queue is never empty: so many of its jobs are there from the beginning. */
function backlog(teamId: string, count: number, seconds: () => number, changes: Parameters<typeof job>[1] = {}): SimulatedJob[] {
  return Array.from({ length: count }, (_, index) => ({ job: job(`${teamId}-${index}`, { teamId, ...changes }), seconds: seconds(), arrivesAtMs: 0 }));
}

test.each([1, 2, 3])('three teams with weights 1:1:2 under saturation end within 5 %% of their share of GPU time (seed %i)', (seed) => {
  const random = randomSource(seed);
  // Team b asks for longer jobs, and for more of them at once, than a: it gains nothing by it.
  const jobs = [
    ...backlog('a', 200, () => 1800 + 3600 * random()),
    ...backlog('b', 60, () => 7200 + 14_400 * random()),
    ...backlog('c', 280, () => 600 + 7200 * random()),
  ];
  const { gpuSecondsByTeam } = simulate({ teams: [team('a'), team('b'), team('c', { weight: 2 })], workers: workers(10), jobs, untilMs: 48 * HOUR_MS });
  const total = [...gpuSecondsByTeam.values()].reduce((sum, seconds) => sum + seconds, 0);
  expect(total).toBeGreaterThan(0.99 * 10 * 48 * 3600);
  for (const [id, share] of Object.entries({ a: 0.25, b: 0.25, c: 0.5 })) {
    expect(Math.abs((gpuSecondsByTeam.get(id) ?? 0) / total - share)).toBeLessThan(0.05 * share);
  }
});

test('a burst of one team does not put off another team that has used little', () => {
  const jobs = [...backlog('burst', 200, () => 3600), { job: job('quiet-0', { teamId: 'quiet' }), seconds: 600, arrivesAtMs: 60_000 }];
  const { firstStartMs } = simulate({ teams: [team('burst'), team('quiet')], workers: workers(4), jobs, untilMs: 4 * HOUR_MS });
  // The first worker that becomes free.
  expect(firstStartMs.get('quiet-0')).toBe(HOUR_MS);
});

test('in one pass a burst gets no more than its share: what it is given counts at once', () => {
  const jobs = [...backlog('burst', 50, () => 3600), ...backlog('other', 50, () => 3600)];
  const { firstStartMs } = simulate({ teams: [team('burst'), team('other')], workers: workers(10), jobs, untilMs: 1000 });
  const started = [...firstStartMs.keys()].map((id) => id.split('-')[0]);
  expect([started.filter((id) => id === 'burst').length, started.filter((id) => id === 'other').length]).toEqual([5, 5]);
});

test('old usage is forgiven: after some half-lives both teams are served alike', () => {
  const start = 5 * USAGE_HALF_LIFE_MS;
  const long = { job: job('a-old', { teamId: 'a' }), seconds: 3600, arrivesAtMs: 0 };
  const later = ['a', 'b'].flatMap((id) => backlog(id, 60, () => 3600).map((one) => ({ ...one, arrivesAtMs: start })));
  const { gpuSecondsByTeam } = simulate({ teams: [team('a'), team('b')], workers: workers(2), jobs: [long, ...later], untilMs: start + 24 * HOUR_MS });
  expect((gpuSecondsByTeam.get('a') ?? 0) / (gpuSecondsByTeam.get('b') ?? 1)).toBeGreaterThan(0.9);
});

test('nothing starves: a job of the lowest class runs although higher ones never cease to come', () => {
  const random = randomSource(7);
  const stream = Array.from({ length: 600 }, (_, index): SimulatedJob => ({
    job: job(`high-${index}`, { teamId: `t${index % 3}`, priority: 60 }),
    seconds: 1200 + 1200 * random(),
    arrivesAtMs: index * 300_000,
  }));
  const low = { job: job('low', { teamId: 'poor', priority: -10 }), seconds: 600, arrivesAtMs: 0 };
  const first = { job: job('first', { teamId: 't0', priority: 60 }), seconds: 3600, arrivesAtMs: 0 };
  const { firstStartMs } = simulate({ teams: [], workers: workers(1), jobs: [first, low, ...stream], untilMs: 48 * HOUR_MS });
  // Sixty points of a quarter of an hour each bring it into the high class; then its team is the one that is due.
  expect(firstStartMs.get('low')).toBeGreaterThanOrEqual(15 * HOUR_MS);
  expect(firstStartMs.get('low')).toBeLessThan(16 * HOUR_MS);
});
