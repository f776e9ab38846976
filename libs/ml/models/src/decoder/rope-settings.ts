import { z } from 'zod';
import { parseModelConfig } from '../parse-config';
import type { RopeSettings } from './config';

const factor = z.number().min(1).max(1024);

const ropeScalingSchema = z.discriminatedUnion(
  'rope_type',
  [
    z.object({ rope_type: z.literal('linear'), factor }),
    z.object({
      rope_type: z.literal('llama3'),
      factor,
      low_freq_factor: z.number().positive().max(1024),
      high_freq_factor: z.number().positive().max(1024),
      original_max_position_embeddings: z.int().min(1).max(1 << 24),
    }),
  ],
  { error: ({ input }) => `${describe(input)} is not supported; "default", "linear" and "llama3" are` },
);

const ropeSchema = z.object({
  rope_theta: z.number().positive().nullish(),
  rope_scaling: ropeScalingSchema.nullish(),
  partial_rotary_factor: z.literal(1, { error: ({ input }) => `${String(input)} is not supported; only models that rotate all channels of a head (1) are` }).nullish(),
});

/**
 * Rotary positions from the spellings met in the wild: `rope_theta` beside `rope_scaling`, or both inside `rope_parameters` (Transformers 5); `type` for `rope_type`;
 * `default` for no scaling.
 * @throws TunefleetError `incompatible_artifact` naming the field
 */
export function parseRope(config: unknown, defaultTheta: number): RopeSettings {
  const fields = asObject(config);
  const { type, rope_type: ropeType = type ?? 'default', rope_theta: inner, partial_rotary_factor: partial, ...rest } = asObject(fields['rope_scaling'] ?? fields['rope_parameters']);
  const parsed = parseModelConfig(ropeSchema, {
    rope_theta: fields['rope_theta'] ?? inner,
    rope_scaling: ropeType === 'default' ? null : { ...rest, rope_type: ropeType },
    partial_rotary_factor: fields['partial_rotary_factor'] ?? partial,
  });
  return { theta: parsed.rope_theta ?? defaultTheta, scaling: parsed.rope_scaling ?? null };
}

export function asObject(value: unknown): Readonly<Record<string, unknown>> {
  return value !== null && typeof value === 'object' && !Array.isArray(value) ? (value as Readonly<Record<string, unknown>>) : {};
}

function describe(input: unknown): string {
  return `rope_type ${JSON.stringify(asObject(input)['rope_type'])?.slice(0, 60) ?? 'missing'}`;
}
