import { RETENTION_KINDS, type RetentionKind } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';

export interface RetentionRule {
  readonly kind: RetentionKind;
  readonly olderThanMs: number;
  /** The newest so many of each job stay. */
  readonly keep: number;
}

const HOUR_MS = 3_600_000;
const DAY_MS = 86_400_000;

/** Kinds of which a number can be kept. */
const counted: ReadonlySet<RetentionKind> = new Set(['checkpoints', 'events']);
/** Bytes are stored before the row that names them; the ledger of usage covers the last months. */
const minimumMs: Readonly<Partial<Record<RetentionKind, number>>> = { artifacts: HOUR_MS, attempts: 62 * DAY_MS };

const defaults: Readonly<Record<RetentionKind, Omit<RetentionRule, 'kind'>>> = {
  outbox: { olderThanMs: HOUR_MS, keep: 0 },
  events: { olderThanMs: 90 * DAY_MS, keep: 0 },
  metrics: { olderThanMs: 180 * DAY_MS, keep: 0 },
  uploads: { olderThanMs: 7 * DAY_MS, keep: 0 },
  checkpoints: { olderThanMs: 30 * DAY_MS, keep: 1 },
  attempts: { olderThanMs: 730 * DAY_MS, keep: 0 },
  artifacts: { olderThanMs: 7 * DAY_MS, keep: 0 },
};

/** A rule for every kind. */
export const defaultRetention: readonly RetentionRule[] = RETENTION_KINDS.map((kind) => ({ kind, ...defaults[kind] }));

/**
 * In the order of removal, with what was left open filled in.
 * @throws invalid_input for an age below what is safe, a number where none can be kept, or attempts that go before what hangs on them
 */
export function retentionRules(wanted: ReadonlyMap<RetentionKind, { readonly olderThanMs: number; readonly keep?: number | undefined }>): readonly RetentionRule[] {
  const rules = RETENTION_KINDS.flatMap((kind): RetentionRule[] => {
    const rule = wanted.get(kind);
    return rule === undefined ? [] : [{ kind, olderThanMs: rule.olderThanMs, keep: rule.keep ?? defaults[kind].keep }];
  });
  for (const { kind, olderThanMs, keep } of rules) {
    const leastMs = minimumMs[kind] ?? 0;
    if (olderThanMs < leastMs) throw refused(kind, `${ageText(olderThanMs)} is too short: at least ${ageText(leastMs)}`);
    if (keep > 0 && !counted.has(kind)) throw refused(kind, `no number can be kept of ${kind}; only of ${[...counted].join(' and ')}`);
  }
  const attempts = rules.find(({ kind }) => kind === 'attempts');
  const longer = rules.find(({ olderThanMs, kind }) => attempts !== undefined && kind !== 'artifacts' && olderThanMs > attempts.olderThanMs);
  if (attempts !== undefined && longer !== undefined) {
    throw refused('attempts', `${ageText(attempts.olderThanMs)} is shorter than the ${ageText(longer.olderThanMs)} of ${longer.kind}: attempts, of which usage is told, are kept the longest`);
  }
  return rules;
}

const RULE = /^([a-z]+)=(\d{1,6})([mhd])(?::(\d{1,6}))?$/;
const unitsMs: Readonly<Record<string, number>> = { m: 60_000, h: HOUR_MS, d: DAY_MS };

/**
 * "events=90d,checkpoints=30d:2": ages in minutes, hours or days; after the colon how many of each job are kept.
 * @throws invalid_input
 */
export function parseRetention(text: string): readonly RetentionRule[] {
  const wanted = new Map<RetentionKind, { olderThanMs: number; keep?: number | undefined }>();
  for (const part of text.split(',').map((each) => each.trim()).filter((each) => each !== '')) {
    const [, name, count, unit = '', keep] = RULE.exec(part) ?? [];
    if (name === undefined) throw new TunefleetError('invalid_input', `"${part.slice(0, 80)}" is no retention rule: kind=age or kind=age:number is needed, such as events=90d or checkpoints=30d:2`, { param: 'rules' });
    const kind = RETENTION_KINDS.find((each) => each === name);
    if (kind === undefined) throw new TunefleetError('invalid_input', `"${name}" is nothing that is kept: ${RETENTION_KINDS.join(', ')}`, { param: 'rules' });
    if (wanted.has(kind)) throw refused(kind, 'it is given twice');
    wanted.set(kind, { olderThanMs: Number(count) * (unitsMs[unit] ?? 0), keep: keep === undefined ? undefined : Number(keep) });
  }
  return retentionRules(wanted);
}

function ageText(ms: number): string {
  if (ms % DAY_MS === 0) return `${ms / DAY_MS} d`;
  return ms % HOUR_MS === 0 ? `${ms / HOUR_MS} h` : `${Math.round(ms / 60_000)} min`;
}

function refused(kind: RetentionKind, why: string): TunefleetError {
  return new TunefleetError('invalid_input', `retention of ${kind}: ${why}`, { param: `rules.${kind}` });
}
