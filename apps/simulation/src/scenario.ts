import { Random } from './random';

/** The world that a seed stands for. Rates are per second of virtual time; probabilities per occasion. */
export interface Scenario {
  readonly seed: number;
  /** The arguments that make it again. */
  readonly replay: string;
  readonly replicas: number;
  readonly workers: number;
  readonly teams: readonly { readonly name: string; readonly weight: number; readonly runningJobs: number | null }[];
  readonly models: number;
  /** Workers have up to so many slots, and so many of the teams and of their jobs may share them; null: nobody shares. */
  readonly sharing: { readonly slotsMax: number; readonly teams: number; readonly jobs: number } | null;
  /** Users and faults are at work for so long; then everything has to end. */
  readonly activeMs: number;
  readonly settleMs: number;
  readonly jobsPerSecond: number;
  readonly jobs: { readonly stepsMax: number; readonly stepMsMax: number; readonly dependent: number; readonly ranked: number };
  readonly userActsPerSecond: number;
  /** Of machines of the fleet … */
  readonly faultsPerSecond: number;
  /** … and of replicas, the database and the disk. */
  readonly outagesPerSecond: number;
  /** In the end somebody kills engines that hang, so that not a whole large fleet has to be simulated for the half hour until their agents do. */
  readonly killsHung: boolean;
  /** In the end users cancel what still waits. */
  readonly cancelsRest: boolean;
  /** How long a cordoned worker waits for an operator to look at it and let it work again. */
  readonly cordonedMs: number;
  readonly network: { readonly latencyMs: number; readonly slow: number; readonly duplicate: number };
  readonly wakes: { readonly lost: number; readonly twice: number };
  readonly queue: { readonly lost: number; readonly twice: number };
  /** Worker clocks run so much faster or slower, and are off by so much. */
  readonly skew: { readonly rate: number; readonly offsetMs: number };
}

export interface ScenarioOptions {
  /** A small world of ten minutes. */
  readonly short?: boolean;
  readonly workers?: number;
}

/** Fleets above this size have minutes, not hours. */
const LARGE = 200;

/** Nobody shares while there are free workers. */
const SHARED_LOAD = 2.5;

function sharingOf(random: Random): Scenario['sharing'] {
  return random.chance(0.6) ? { slotsMax: random.pick([2, 4, 8]), teams: random.between(0.6, 1), jobs: random.between(0.5, 1) } : null;
}

export function scenarioOf(seed: number, { short = false, workers: wanted }: ScenarioOptions = {}): Scenario {
  const random = new Random(seed, 1);
  const workers = wanted ?? random.int(3, short ? 12 : 40);
  const isLarge = workers > LARGE;
  const harsh = random.chance(0.5);
  const sharing = sharingOf(new Random(seed, 8));
  // Few steps a minute or many: both ends are as likely as the middle.
  const stepMsMax = Math.round(500 * (isLarge ? 10 : 120) ** random.next());
  return {
    seed,
    replay: `--seed=${seed}${short ? ' --short' : ''}${wanted === undefined ? '' : ` --workers=${wanted}`}`,
    replicas: random.int(1, 3),
    workers,
    teams: Array.from({ length: random.int(1, 5) }, (_, index) => ({ name: `team-${index}`, weight: random.pick([0.5, 1, 1, 2]), runningJobs: random.chance(0.2) ? random.int(1, 3) : null })),
    models: random.int(1, 6),
    activeMs: (short ? 10 : isLarge ? 3 : random.int(20, 90)) * 60_000,
    settleMs: 24 * 3_600_000,
    // From a fleet that idles to one with a queue.
    jobsPerSecond: ((sharing === null ? 1 : SHARED_LOAD) * workers * random.between(0.3, 1.5)) / (20 + (30 * stepMsMax) / 2_000),
    jobs: { stepsMax: random.int(5, isLarge ? 15 : 60), stepMsMax, dependent: random.between(0, 0.3), ranked: 0.3 },
    userActsPerSecond: random.between(0.005, 0.08) * Math.max(1, workers / 40),
    faultsPerSecond: (harsh ? 0.004 : 0.001) * Math.max(10, workers),
    outagesPerSecond: isLarge ? 0.05 : harsh ? 0.015 : 0.004,
    killsHung: isLarge,
    cancelsRest: false,
    cordonedMs: random.between(60_000, 900_000),
    network: { latencyMs: random.between(1, 40), slow: harsh ? 0.01 : 0.001, duplicate: harsh ? 0.03 : 0.005 },
    wakes: { lost: random.between(0, 0.3), twice: random.between(0, 0.2) },
    queue: { lost: random.between(0, 0.1), twice: random.between(0, 0.1) },
    skew: { rate: 0.02, offsetMs: 86_400_000 },
    sharing,
  };
}
