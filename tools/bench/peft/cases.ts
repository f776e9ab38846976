/** What is measured: a tuner, its data, and how the peer batches it. */
import { OptionError } from '../report/options';

export interface BenchCase {
  readonly name: string;
  /** Fields of a tuner's spec as both sides understand them. */
  readonly tuner: Readonly<Record<string, unknown>>;
  readonly data: DataName;
  /** Examples per optimiser step. */
  readonly batch: number;
  readonly dtypes: readonly ('f32' | 'bf16')[];
  readonly peers: readonly PeerBatching[];
}

/**
 * `padding`: random batches, padded to their longest row, as Hugging Face's trainer makes them. `packing`: rows of 1024 tokens by TRL's best-fit packing, one per step.
 */
export type PeerBatching = 'padding' | 'packing';

/** `dense-N`: rows of N random tokens; `mails`: as the quickstart cuts them. */
export type DataName = `dense-${number}` | 'mails' | 'long-mails' | 'dialogues';

const LORA = { kind: 'lora', r: 8, lora_alpha: 16, target_modules: 'all-linear' };
const BOTH: BenchCase['dtypes'] = ['f32', 'bf16'];
const ONE: BenchCase['dtypes'] = ['f32'];
const PADDING: BenchCase['peers'] = ['padding'];
const RAGGED: BenchCase['peers'] = ['padding', 'packing'];

export const CASES: readonly BenchCase[] = [
  { name: 'LoRA 4 x 256', tuner: LORA, data: 'dense-256', batch: 4, dtypes: BOTH, peers: PADDING },
  { name: 'LoRA 1 x 1024', tuner: LORA, data: 'dense-1024', batch: 1, dtypes: BOTH, peers: PADDING },
  { name: 'LoRA on mails', tuner: LORA, data: 'mails', batch: 16, dtypes: ONE, peers: RAGGED },
  { name: 'LoRA on long mails', tuner: LORA, data: 'long-mails', batch: 4, dtypes: ONE, peers: RAGGED },
  { name: 'LoRA on dialogues', tuner: LORA, data: 'dialogues', batch: 16, dtypes: ONE, peers: RAGGED },
  { name: 'DoRA 4 x 256', tuner: { ...LORA, use_dora: true }, data: 'dense-256', batch: 4, dtypes: ONE, peers: PADDING },
  { name: 'QLoRA 4 x 256', tuner: { ...LORA, kind: 'qlora' }, data: 'dense-256', batch: 4, dtypes: ONE, peers: PADDING },
  { name: 'prompt tuning 4 x 256', tuner: { kind: 'prompt-tuning', num_virtual_tokens: 16 }, data: 'dense-256', batch: 4, dtypes: ONE, peers: PADDING },
  { name: 'full 4 x 256', tuner: { kind: 'full' }, data: 'dense-256', batch: 4, dtypes: ONE, peers: PADDING },
];

/** Cases whose name holds one of the words; all without. @throws OptionError naming what there is when a word fits none */
export function chooseCases(words: string | undefined): readonly BenchCase[] {
  if (words === undefined) return CASES;
  const wanted = words.split(',').map((word) => word.trim().toLowerCase());
  for (const word of wanted) {
    if (!CASES.some(({ name }) => name.toLowerCase().includes(word))) throw new OptionError('only', word, `it must be part of the name of one of: ${CASES.map(({ name }) => name).join('; ')}`);
  }
  return CASES.filter(({ name }) => wanted.some((word) => name.toLowerCase().includes(word)));
}
