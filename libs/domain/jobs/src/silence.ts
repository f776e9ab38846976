import type { JsonValue } from '@tunefleet/foundation';
import type { StuckVerdict } from './stuck';

/** How long an engine may say nothing of a job that it has, in any phase, whatever it says of others. */
export interface SilenceRule {
  /** After this it is noted as stuck … */
  readonly noteMs: number;
  /** … and after this it is given up as an infrastructure failure. */
  readonly giveUpMs: number;
}

export const ENGINE_SILENCE_MS = 1_800_000;

/** Noted after a third of the time. An engine speaks at least between two passes through the model, also those of others that a job waits for, and every half second while it loads or tokenises. */
export function silenceRule(giveUpMs: number): SilenceRule {
  return { noteMs: Math.ceil(giveUpMs / 3), giveUpMs };
}

export interface SilenceJudgement {
  readonly verdict: StuckVerdict;
  /** When it would be another one; null: never. */
  readonly nextInMs: number | null;
}

export function judgeSilence(silentMs: number, { noteMs, giveUpMs }: SilenceRule): SilenceJudgement {
  if (silentMs >= giveUpMs) return { verdict: 'give_up', nextInMs: null };
  return silentMs >= noteMs ? { verdict: 'stuck', nextInMs: giveUpMs - silentMs } : { verdict: 'goes_on', nextInMs: noteMs - silentMs };
}

/** @param phase as the engine told it last, with its progress: `load 40 %`; null: it has told none */
export function silenceMessage(silentMs: number, phase: string | null): string {
  return `nothing heard from the engine for ${Math.round(silentMs / 1000)} s ${doing(phase)}`;
}

const activities: Readonly<Record<string, string>> = {
  download: 'while it downloaded the base model',
  convert: 'while it converted the base model',
  load: 'while it loaded the base model',
  tokenise: 'while it tokenised the data',
  train: 'while it trained',
  validate: 'while it validated',
  score: 'while it scored rows',
  save: 'while it saved the result',
};

function doing(phase: string | null): string {
  if (phase === null) return 'since it was given the job';
  const [word = '', ...progress] = phase.split(' ');
  const activity = activities[word];
  if (activity === undefined) return `in its phase "${phase}"`;
  return progress.length === 0 ? activity : `${activity} (${progress.join(' ')})`;
}

/** `data.code` of the agent's words about a silent engine. */
export type SilenceCode = 'stuck' | 'unstuck';

/** What the logs of a batch say last of the attempt: stuck, going on, or (null) neither. */
export function stuckMark(logs: readonly JsonValue[]): boolean | null {
  const codes = logs.map((data) => (typeof data === 'object' && data !== null && 'code' in data ? data['code'] : null));
  const last = codes.findLast((code) => code === 'stuck' || code === 'unstuck');
  return last === undefined ? null : last === 'stuck';
}
