import type { Backend, Raw } from './backend';

export interface OpCost {
  /** Backend method and the shapes it was given: `matMul [1024,576] [1536,576]ᵀ`. */
  readonly label: string;
  readonly calls: number;
  readonly seconds: number;
  /** Read and written, summed over the calls. */
  readonly bytes: number;
}

/**
 * Where the time of a device goes, by op and shape. Meaningful where ops run to their end before they return, as on the processor;
 * on a GPU it shows the time to launch them.
 */
export class OpProfile {
  #costs = new Map<string, { calls: number; seconds: number; bytes: number }>();

  record(label: string, seconds: number, bytes: number): void {
    const cost = this.#costs.get(label) ?? { calls: 0, seconds: 0, bytes: 0 };
    cost.calls++;
    cost.seconds += seconds;
    cost.bytes += bytes;
    this.#costs.set(label, cost);
  }

  reset(): void {
    this.#costs = new Map();
  }

  /** Dearest first. */
  costs(): OpCost[] {
    return [...this.#costs].map(([label, cost]) => ({ label, ...cost })).sort((a, b) => b.seconds - a.seconds);
  }
}

/** A backend that does as `backend` does and notes in `profile` what each call took. */
export function profiled(backend: Backend, profile: OpProfile): Backend {
  const fused = backend.fused && timed(backend.fused, profile);
  return new Proxy(timed(backend, profile), { get: (target, name) => (name === 'fused' ? fused : (Reflect.get(target, name) as unknown)) });
}

function timed<T extends object>(ops: T, profile: OpProfile): T {
  return new Proxy(ops, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name, target);
      if (typeof member !== 'function') return member;
      const method = member as (...args: unknown[]) => unknown;
      return (...args: unknown[]): unknown => {
        const started = performance.now();
        const result = method.apply(target, args);
        const seconds = (performance.now() - started) / 1000;
        if (typeof name === 'string' && name !== 'free') profile.record(labelOf(name, args), seconds, bytesOf(args) + bytesOf([result]));
        return result;
      };
    },
  });
}

function labelOf(name: string, args: readonly unknown[]): string {
  return [name, ...args.map(describe)].filter((part) => part !== '').join(' ');
}

function describe(value: unknown): string {
  if (isRaw(value)) return `${value.dtype === 'f32' ? '' : value.dtype}[${value.shape.join(',')}]`;
  if (typeof value === 'boolean') return value ? 'ᵀ' : '·';
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) return value.some(isRaw) ? value.map(describe).join(' ') : `(${value.join(',')})`;
  return '';
}

function bytesOf(values: readonly unknown[]): number {
  return values.reduce<number>((sum, value) => sum + (Array.isArray(value) ? bytesOf(value) : isRaw(value) ? rawBytes(value) : 0), 0);
}

function rawBytes({ shape, dtype }: Raw): number {
  const width = { f32: 4, i32: 4, bf16: 2, u8: 1, bool: 1 }[dtype];
  return shape.reduce((product, size) => product * size, width);
}

function isRaw(value: unknown): value is Raw {
  return typeof value === 'object' && value !== null && 'id' in value && 'shape' in value && 'dtype' in value;
}
