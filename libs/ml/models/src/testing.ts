import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SafetensorsFile } from '@tunefleet/ml-formats';
import { headOf } from '@tunefleet/ml-nn';
import { headLogits, type Device, type FloatDType } from '@tunefleet/ml-tensor';
import type { CausalLm, ForwardOptions, TokenBatch } from './causal-lm';
import { loadCausalLm } from './loading/load-causal-lm';

const FIXTURES = join(dirname(fileURLToPath(import.meta.url)), '..', 'fixtures');

/** A model written by `tools/golden/{llama_fixture,decoder_fixtures}.py`, with what Transformers computes for it. */
export interface GoldenModel {
  readonly folder: string;
  readonly config: unknown;
  /** [2, 24] */
  readonly ids: Int32Array;
  /** [2, 24, V] */
  readonly logits: Float32Array;
  /** What the first eight tokens of the first row are continued with; not for Llama. */
  readonly greedy: Int32Array | null;
}

/** @param name folder of the fixture: `tied` and `scaled` are Llamas, the others are named by model type */
export function goldenModel(name: string): GoldenModel {
  const folder = join(FIXTURES, name);
  using file = SafetensorsFile.open(join(folder, 'golden.safetensors'));
  const floats = (key: string) => new Float32Array(file.read(key).slice().buffer);
  const integers = (key: string) => new Int32Array(file.read(key).slice().buffer);
  return {
    folder,
    config: JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')),
    ids: integers('ids'),
    logits: floats('logits'),
    greedy: file.tensors.has('greedy') ? integers('greedy') : null,
  };
}

export function loadGolden(device: Device, golden: GoldenModel, computeDtype: FloatDType = 'f32'): Promise<CausalLm> {
  return loadCausalLm(device, { folder: golden.folder, config: golden.config, computeDtype });
}

/** Logits of every token, [rows * columns, V]. */
export function logitsOf(model: CausalLm, batch: TokenBatch, options: ForwardOptions = {}): Float32Array {
  return model.device.scope(() => model.device.readFloats(headLogits(model.forward(batch, options), headOf(model, options.adapter ?? null))));
}

export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] ?? NaN) - (b[i] ?? NaN));
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}
