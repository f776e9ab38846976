import { invariant } from '@tunefleet/foundation';
import type { Device } from '../device';
import type { Tensor } from '../tensor';

export interface BackwardContext {
  /** Gradient of each output, null where nothing depends on it. Borrowed. */
  readonly gradients: readonly (Tensor | null)[];
  /** What `run` saved, in its order. Borrowed. */
  readonly saved: readonly Tensor[];
  /** Per input: whether its gradient is wanted. */
  readonly needs: readonly boolean[];
  /** What `rematerialise` returned if a later operation asked for it; else empty. Borrowed. */
  readonly recomputed: readonly Tensor[];
}

/** One differentiable step. Forward and backward run inside a scope: their intermediates are freed when they return. */
export interface Operation {
  readonly name: string;
  /** Tensors the outputs depend on differentiably. */
  readonly inputs: readonly Tensor[];
  /** @returns the outputs, and what the backward pass needs (inputs, outputs or intermediates) */
  run(): { readonly outputs: readonly Tensor[]; readonly save: readonly Tensor[] };
  /** @returns a gradient per input, null where not needed or zero; a returned tensor may be one of the given ones */
  backward(context: BackwardContext): readonly (Tensor | null)[];
  /**
   * Computes the outputs again from what `run` saved, bit for bit: where they cost little, the tape does not keep them for later operations.
   * May return more after them that `backward` can use.
   */
  readonly rematerialise?: (saved: readonly Tensor[]) => readonly Tensor[];
}

type Saved = { readonly kind: 'tensor'; readonly tensor: Tensor } | { readonly kind: 'output'; readonly node: Node; readonly index: number };

interface Node {
  readonly operation: Operation;
  readonly outputUids: readonly number[];
  readonly needs: readonly boolean[];
  readonly saved: Saved[];
  recomputed: readonly Tensor[] | null;
}

/** Records operations on tracked tensors and walks them backwards once. */
export class Tape {
  private nodes: Node[] = [];
  private readonly producers = new Map<number, { node: Node; index: number }>();
  /** While probing nothing is recorded; only which outputs would be tracked. */
  private probing = false;

  private constructor(
    private readonly device: Device,
    private readonly tracked: Set<number>,
    private readonly gradients: Map<number, Tensor>,
  ) {}

  static start(device: Device, sources: readonly Tensor[]): Tape {
    return new Tape(device, new Set(sources.map((tensor) => tensor.uid)), new Map());
  }

  isTracked(tensor: Tensor): boolean {
    return this.tracked.has(tensor.uid);
  }

  perform(operation: Operation): readonly Tensor[] {
    const needs = operation.inputs.map((input) => this.tracked.has(input.uid));
    const wanted = needs.includes(true);
    return this.device.scope(() => {
      const { outputs, save } = operation.run();
      if (wanted) {
        for (const output of outputs) this.tracked.add(output.uid);
        if (!this.probing) this.remember(operation, outputs, save, needs);
      }
      return outputs;
    });
  }

  /** Runs `fn` without recording. @returns its result, tracked if anything inside would have been recorded */
  probe(fn: () => Tensor): { output: Tensor; wanted: boolean } {
    const before = this.probing;
    this.probing = true;
    try {
      const output = this.device.scope(fn);
      return { output, wanted: this.tracked.has(output.uid) };
    } finally {
      this.probing = before;
    }
  }

  get isProbing(): boolean {
    return this.probing;
  }

  /** Adds a node whose backward records `fn` anew and walks it; gradients go to whatever it touches. */
  rememberCheckpoint(inputs: readonly Tensor[], output: Tensor, fn: () => Tensor): void {
    const operation: Operation = {
      name: 'checkpoint',
      inputs,
      run: () => ({ outputs: [], save: [] }),
      backward: ({ gradients }) => {
        const seed = gradients[0];
        if (!seed) return [];
        const inner = new Tape(this.device, this.tracked, this.gradients);
        const again = this.device.scope(() => inner.recording(fn));
        inner.walk([[again, seed]]);
        again.dispose();
        return [];
      },
    };
    this.remember(operation, [output], inputs, []);
  }

  /** Makes this the device's tape while `fn` runs. */
  recording<T>(fn: () => T): T {
    const outer = this.device.tape;
    this.device.tape = this;
    try {
      return fn();
    } finally {
      this.device.tape = outer;
    }
  }

  /** Walks back from the seeds, freeing as it goes. Afterwards `take` gives the gradients of the sources. */
  walk(seeds: readonly (readonly [output: Tensor, gradient: Tensor])[]): void {
    for (const [output, gradient] of seeds) this.accumulate(output.uid, gradient);
    const outer = this.device.tape;
    this.device.tape = null;
    try {
      for (let node = this.nodes.pop(); node; node = this.nodes.pop()) this.walkNode(node);
    } finally {
      this.device.tape = outer;
    }
  }

  /** The gradient of a source, owned by the caller; null if the result does not depend on it. */
  take(source: Tensor): Tensor | null {
    const gradient = this.gradients.get(source.uid);
    if (!gradient) return null;
    const owned = this.device.primitives.reshape(gradient, gradient.shape);
    gradient.release();
    this.gradients.delete(source.uid);
    return owned;
  }

  /** Frees everything still held, also after an error half way. */
  dispose(): void {
    for (const node of this.nodes) releaseNode(node);
    for (const gradient of this.gradients.values()) gradient.release();
    this.nodes = [];
    this.gradients.clear();
    this.producers.clear();
  }

  private remember(operation: Operation, outputs: readonly Tensor[], save: readonly Tensor[], needs: readonly boolean[]): void {
    const node: Node = {
      operation,
      outputUids: outputs.map((output) => output.uid),
      needs,
      saved: save.map((tensor) => this.hold(tensor)),
      recomputed: null,
    };
    if (operation.rematerialise) outputs.forEach((output, index) => this.producers.set(output.uid, { node, index }));
    this.nodes.push(node);
  }

  private hold(tensor: Tensor): Saved {
    const producer = this.producers.get(tensor.uid);
    return producer ? { kind: 'output', ...producer } : { kind: 'tensor', tensor: tensor.retain() };
  }

  private walkNode(node: Node): void {
    const gradients = node.outputUids.map((uid) => this.gradients.get(uid) ?? null);
    if (gradients.some((gradient) => gradient !== null)) {
      this.device.scope(() => {
        const saved = node.saved.map(resolve);
        const results = node.operation.backward({ gradients, saved, needs: node.needs, recomputed: node.recomputed ?? [] });
        results.forEach((gradient, index) => {
          const input = node.operation.inputs[index];
          if (gradient && input && node.needs[index]) this.accumulate(input.uid, gradient);
        });
        // Recomputed outputs serve several consumers, so they must outlive this scope.
        return recomputedBy(node.saved);
      });
    }
    for (const uid of node.outputUids) {
      this.gradients.get(uid)?.release();
      this.gradients.delete(uid);
      this.producers.delete(uid);
    }
    releaseNode(node);
  }

  private accumulate(uid: number, gradient: Tensor): void {
    const sum = this.gradients.get(uid);
    if (!sum) {
      this.gradients.set(uid, gradient.retain());
      return;
    }
    const next = this.device.primitives.add(sum, gradient);
    this.gradients.set(uid, next.retain());
    next.dispose();
    sum.release();
  }
}

function resolve(saved: Saved): Tensor {
  if (saved.kind === 'tensor') return saved.tensor;
  const { node, index } = saved;
  const { operation } = node;
  node.recomputed ??= operation.rematerialise?.(node.saved.map(resolve)) ?? null;
  const tensor = node.recomputed?.[index];
  invariant(tensor, `${operation.name} recomputed without output ${index}`);
  return tensor;
}

function recomputedBy(saved: readonly Saved[]): readonly Tensor[] {
  return saved.flatMap((entry) => (entry.kind === 'output' ? [...(entry.node.recomputed ?? []), ...recomputedBy(entry.node.saved)] : []));
}

function releaseNode(node: Node): void {
  for (const entry of node.saved) if (entry.kind === 'tensor') entry.tensor.release();
  for (const tensor of node.recomputed ?? []) tensor.dispose();
  node.saved.length = 0;
  node.recomputed = null;
}
