import { TunefleetError } from '@tunefleet/foundation';
import { f16ToF32 } from '@tunefleet/ml-formats';
import type { Device, FloatDType, Tensor } from '@tunefleet/ml-tensor';
import type { WeightData, WeightSource } from '../weight-source';

export interface ExpectedWeight {
  readonly name: string;
  readonly shape: readonly number[];
  /** Other names it may be stored under. */
  readonly aliases?: readonly string[];
}

/** Names shown in a message; the rest is counted. */
const SHOWN = 8;

/**
 * Compares a checkpoint with what the architecture needs, before anything is loaded.
 * @returns the name each expected tensor is stored under, and names of tensors that nothing asks for
 * @throws TunefleetError `incompatible_artifact`, reason `missing_tensor` or `wrong_shape`, naming the tensors
 */
export function checkWeights(source: WeightSource, expected: readonly ExpectedWeight[]): { readonly storedAs: ReadonlyMap<string, string>; readonly extra: readonly string[] } {
  const present = new Set(source.names());
  const storedAs = new Map<string, string>();
  for (const { name, aliases = [] } of expected) {
    const stored = [name, ...aliases].find((each) => present.has(each));
    if (stored !== undefined) storedAs.set(name, stored);
  }
  const missing = expected.filter(({ name }) => !storedAs.has(name)).map(({ name }) => name);
  if (missing.length > 0) {
    throw new TunefleetError('incompatible_artifact', `the model's weights lack ${listNames(missing)}; the files are incomplete or do not belong to this config.json`, {
      reason: 'missing_tensor',
      details: { missing },
    });
  }
  for (const { name, shape } of expected) {
    const found = source.info(storedAs.get(name) ?? name).shape;
    if (found.length === shape.length && found.every((size, axis) => size === shape[axis])) continue;
    throw new TunefleetError('incompatible_artifact', `tensor "${name}" has shape [${found.join(', ')}], but config.json asks for [${shape.join(', ')}]`, {
      reason: 'wrong_shape',
      details: { tensor: name, found, expected: shape },
    });
  }
  const wanted = new Set(storedAs.values());
  return { storedAs, extra: [...present].filter((name) => !wanted.has(name)) };
}

/** `3 tensors: a, b, c`, shortened. */
export function listNames(names: readonly string[]): string {
  const shown = names.slice(0, SHOWN).join(', ');
  return `${names.length} tensor${names.length === 1 ? '' : 's'}: ${shown}${names.length > SHOWN ? ', ...' : ''}`;
}

/** Puts one tensor on the device in `dtype`; the conversion runs there. @returns owned by the caller */
export function loadWeight(device: Device, source: WeightSource, name: string, dtype: FloatDType): Tensor {
  using stored = uploadAsStored(device, source.load(name));
  return device.primitives.cast(stored, dtype);
}

function uploadAsStored(device: Device, { data, dtype, shape }: WeightData): Tensor {
  // A copy: the source may reuse its buffer, and typed arrays want aligned offsets.
  const bytes = data.slice().buffer;
  switch (dtype) {
    case 'F32':
      return device.tensor(new Float32Array(bytes), shape, 'f32');
    case 'BF16':
      return device.info.bf16 ? device.tensor(new Uint16Array(bytes), shape, 'bf16') : device.tensor(widenBf16(new Uint16Array(bytes)), shape, 'f32');
    case 'F16':
      return device.tensor(Float32Array.from(new Uint16Array(bytes), f16ToF32), shape, 'f32');
  }
}

function widenBf16(bits: Uint16Array): Float32Array {
  return new Float32Array(Uint32Array.from(bits, (word) => word << 16).buffer);
}
