import { specHalfOf, type TunerSpec } from './spec-registry';
import type { TunableModel } from './tuner';

/** Hidden states that a run starts from and that depend on the input alone, so that they may be kept from one epoch to the next. */
export interface FixedStates {
  /** Per token. */
  readonly states: number;
  /** `learned`: those of tokens that carry loss are enough, as what follows works on every token by itself. */
  readonly rows: 'learned' | 'all';
  /** Blocks before them; 0 for a bypass, which reads what it likes. */
  readonly untouchedBlocks: number;
}

/** @returns null where the first block is trained already, or what enters it */
export function fixedStates(spec: TunerSpec, model: TunableModel): FixedStates | null {
  const half = specHalfOf(spec);
  const states = half.stemStates?.(spec, model);
  if (states !== undefined) return { states, rows: 'learned', untouchedBlocks: 0 };
  const untouchedBlocks = half.untouchedBlocks?.(spec, model) ?? 0;
  return untouchedBlocks === 0 ? null : { states: 1, rows: untouchedBlocks === model.layers ? 'learned' : 'all', untouchedBlocks };
}
