import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SafetensorsFile } from '@tunefleet/ml-formats';
import { loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { openDevice, type FloatDType } from '@tunefleet/ml-tensor';
import type { Tuner } from '../tuner';

const libraries = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
export const [rows, columns, n] = [2, 20, 5];
export const METHODS = {
  'prompt-tuning': { kind: 'prompt-tuning', num_virtual_tokens: n },
  'prefix-tuning': { kind: 'prefix-tuning', num_virtual_tokens: n },
  'prefix-projection': { kind: 'prefix-tuning', num_virtual_tokens: n, prefix_projection: true, encoder_hidden_size: 12 },
  'p-tuning': { kind: 'p-tuning', num_virtual_tokens: n, encoder_hidden_size: 24 },
} as const;
export type Method = keyof typeof METHODS;

export const folderOf = (method: Method, base: string) => join(libraries, 'tuners', 'fixtures', 'virtual-tokens', method, base);

export async function openBase(base: string, backend: 'tensorflow' | 'wasm' = 'tensorflow', computeDtype: FloatDType = 'f32'): Promise<CausalLm> {
  const folder = join(libraries, 'models', 'fixtures', base);
  const config: unknown = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'));
  return loadCausalLm(await openDevice({ backend }), { folder, config, computeDtype });
}

export function goldenOf(method: Method, base: string) {
  const bytes = (name: string) => {
    using file = SafetensorsFile.open(join(folderOf(method, base), 'golden.safetensors'));
    return file.read(name).slice().buffer;
  };
  const floats = (name: string) => new Float32Array(bytes(name));
  const integers = (name: string) => new Int32Array(bytes(name));
  return { floats, integers, batch: { ids: integers('ids'), rows, columns }, labels: integers('labels'), valuesOf: ({ parameters }: Tuner) => Float32Array.from(parameters.flatMap(({ name }) => [...floats(`value.${name}`)])) };
}

export const handlesOf = ({ device }: CausalLm) => device.memory.liveHandles - device.cachedScalars;
