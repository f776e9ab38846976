import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { referencePython } from './python-environment';

const run = promisify(execFile);
const TIMEOUT_MS = 20 * 60_000;

export type VerifiedDtype = 'f32' | 'bf16';

/**
 * Largest difference of any logit that counts as the same model. In bf16 even two right programs exceed it on deep models: Transformers in bf16 is up to
 * 1.7 away from itself in f32 on SmolLM2-135M. So f32 is what proves an adapter, and bf16 is shown beside both sides' distance from f32.
 * @see docs/decisions/0007-parity-is-proved-in-f32.md
 */
export const LIMITS: Readonly<Record<VerifiedDtype, number>> = { f32: 5e-3, bf16: 0.15 };

export interface CompareOptions {
  /** The repository. */
  readonly root: string;
  /** Hugging Face model folder. */
  readonly base: string;
  /** PEFT folder; null: the base alone. */
  readonly adapter: string | null;
  /** One text per line. */
  readonly textFile: string;
  /** A folder for the logits. */
  readonly work: string;
  readonly dtype: VerifiedDtype;
}

export interface Comparison {
  readonly dtype: VerifiedDtype;
  readonly texts: number;
  readonly positions: number;
  readonly maxAbsDifference: number;
  /** Share of positions where both find the same token likeliest. */
  readonly sameTopToken: number;
  /** Root mean square distance from the reference in f32; null in f32 itself. */
  readonly rmsError: { readonly ours: number; readonly reference: number } | null;
  readonly passed: boolean;
}

/** Python writes NaN where JSON has no number for it. */
const measured = z.union([z.number(), z.literal('nan').transform(() => NaN)]);
const reportSchema = z.object({
  texts: z.int(),
  positions: z.int(),
  max_abs_difference: measured,
  same_top_token: z.number(),
  reference_rms_error: measured.optional(),
  our_rms_error: measured.optional(),
});

/** Has our engine write its logits, then the reference compare them with its own. @throws when either cannot run */
export async function compareLogits({ root, base, adapter, textFile, work, dtype }: CompareOptions): Promise<Comparison> {
  const ours = join(work, `logits-${dtype}.safetensors`);
  const adapterArguments = adapter === null ? [] : ['--adapter', adapter];
  await run(process.execPath, [join(root, 'dist', 'engine.mjs'), 'logits', '--model', base, ...adapterArguments, '--dtype', dtype, '--text-file', textFile, '--out', ours], { timeout: TIMEOUT_MS });
  const python = await referencePython(root);
  const script = join(root, 'tools', 'verify', 'peft_parity.py');
  const { stdout } = await run(python, [script, '--base', base, ...adapterArguments, '--ours', ours, '--dtype', dtype], { timeout: TIMEOUT_MS, env: { ...process.env, HF_HUB_OFFLINE: '1' } });
  const line = stdout.trim().split('\n').at(-1) ?? '';
  const report = reportSchema.parse(JSON.parse(line.replace(/\b(NaN|Infinity)\b/g, '"nan"')));
  const { our_rms_error: own, reference_rms_error: reference } = report;
  const rmsError = own === undefined || reference === undefined ? null : { ours: own, reference };
  return {
    dtype,
    texts: report.texts,
    positions: report.positions,
    maxAbsDifference: report.max_abs_difference,
    sameTopToken: report.same_top_token,
    rmsError,
    passed: report.max_abs_difference < LIMITS[dtype],
  };
}
