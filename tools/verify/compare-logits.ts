import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { referencePython } from './python-environment';

const run = promisify(execFile);
const TIMEOUT_MS = 20 * 60_000;

export type VerifiedDtype = 'f32' | 'bf16';

/**
 * Largest difference of any logit from the reference in f32 that counts as the same model. Programs that round every result to bf16 exceed it on deep models:
 * Transformers in bf16 is up to 1.7 away from itself in f32 on SmolLM2-135M. So it is no measure for ours; it is shown beside.
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
  /** Largest differences from the reference computed in the same dtype: of ours, and of the reference in f32. Null for f32. */
  readonly referenceInDtype: { readonly fromOurs: number; readonly fromItself: number } | null;
  readonly passed: boolean;
}

/** Python writes NaN where JSON has no number for it. */
const measured = z.union([z.number(), z.literal('nan').transform(() => NaN)]);
const reportSchema = z.object({
  texts: z.int(),
  positions: z.int(),
  max_abs_difference: measured,
  same_top_token: z.number(),
  from_reference_in_dtype: measured.optional(),
  reference_from_itself: measured.optional(),
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
  const { from_reference_in_dtype: fromOurs, reference_from_itself: fromItself } = report;
  return {
    dtype,
    texts: report.texts,
    positions: report.positions,
    maxAbsDifference: report.max_abs_difference,
    sameTopToken: report.same_top_token,
    referenceInDtype: fromOurs === undefined || fromItself === undefined ? null : { fromOurs, fromItself },
    passed: report.max_abs_difference < LIMITS[dtype],
  };
}
