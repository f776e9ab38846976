import { CASES, type DataName } from './cases';
import type { SideOptions, SideResult } from './engine-side';
import type { Row } from '../report/row';
import { speed } from './rows';

/** 1024 tokens a step in rows of growing length: attention is the only part whose cost a token grows with it. */
const LENGTHS = [128, 256, 512, 1024, 2048] as const;
/** Passes a step: what a pass does not share is the update, which is small. */
const PASSES = [1, 2, 4, 8] as const;
const TOKENS = 1024;
const PASS_ROWS = 4;
const PASS_LENGTH = 256;

export interface GrowthOptions extends Pick<SideOptions, 'model' | 'steps' | 'threads'> {
  data(name: DataName, examples: number): Promise<string>;
  measure(options: SideOptions, label: string): Promise<SideResult>;
}

/** Tokens/s of our side alone by row length and by accumulated passes. */
export async function growthRows({ data, measure, ...common }: GrowthOptions): Promise<Row[]> {
  const { tuner } = CASES[0] as (typeof CASES)[number];
  const rows: Row[] = [];
  const add = async (name: string, examples: DataName, batch: number, microBatch: number): Promise<void> => {
    const run = await measure({ ...common, tuner, dtype: 'f32', data: await data(examples, common.steps * batch), batch, microBatch }, name);
    rows.push({ name: `growth, ${name}`, unit: 'tokens/s', value: speed({ runs: [run] }) });
  };
  for (const length of LENGTHS) {
    const batch = Math.max(1, TOKENS / length);
    await add(`${batch} x ${length}`, `dense-${length}`, batch, batch);
  }
  for (const passes of PASSES) await add(`${passes} passes of ${PASS_ROWS} x ${PASS_LENGTH}`, `dense-${PASS_LENGTH}`, passes * PASS_ROWS, PASS_ROWS);
  return rows;
}
