import { invariant } from '@tunefleet/foundation';
import type { Primitives } from '../../primitives';
import { customOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';
import { multiplyBack, multiplyForward, type FrozenMap } from './frozen-matrix';
import { factorGradients, inputBranch, narrowProduct, productGradient, type LoraBundle } from './lora-bundle';

export interface LinearGroupOptions {
  /** Low-rank updates of the maps, in the dtype of the input. */
  readonly lora?: LoraBundle | null;
  /** [N, out], added to the output of a group of one map. */
  readonly residual?: Tensor | null;
}

/**
 * Frozen linear maps of one input, with their low-rank updates: y_i = x W_iᵀ + bias_i + (drop(x) Aᵀ) B_i, plus the residual.
 * What the maps share is done once: the narrow product x Aᵀ, its gradient, and the sum of the gradients by x.
 * Keeps x, the narrow product [N, R] and dropout masks.
 * @param x [N, in] in the compute dtype; weights of another one are cast as they are used
 * @returns per map [N, out_i]
 */
export function linearGroup(x: Tensor, maps: readonly FrozenMap[], { lora = null, residual = null }: LinearGroupOptions = {}): readonly Tensor[] {
  invariant(!residual || maps.length === 1, `a residual goes with one map, not ${maps.length}`);
  const p = x.device.primitives;
  const updates = lora?.updates ?? [];
  const extra = residual ? [residual] : [];
  return customOp(x.device, {
    name: 'linearGroup',
    inputs: [x, ...extra, ...updates.flatMap(({ a, b }) => [a, b])],
    run: () => {
      const narrow = lora ? narrowProduct(p, x, lora) : null;
      const outputs = maps.map(({ weight, bias }, index) => {
        const b = lora?.b[index] ?? null;
        const base = multiplyForward(x, weight);
        const terms = [bias ? p.add(base, bias) : base, ...(narrow && b ? [p.matMul(narrow.product, b)] : []), ...extra];
        return sumOf(p, terms);
      });
      return { outputs, save: [x, ...maps.map(({ weight }) => weight.value), ...(lora && narrow ? [lora.a, ...lora.b.filter((b) => b !== null), narrow.product, ...narrow.masks] : [])] };
    },
    backward: ({ gradients, saved, needs }) => {
      const [source] = saved;
      if (!source) return [];
      const [product, ...masks] = lora ? saved.slice(1 + maps.length + 1 + lora.b.filter((b) => b !== null).length) : [];
      const dProduct = lora ? productGradient(p, gradients, lora) : null;
      const parts = gradients.flatMap((g, index) => (g && needs[0] ? [multiplyBack(g, (maps[index] as FrozenMap).weight)] : []));
      if (lora && dProduct && needs[0]) parts.push(inputBranch(p, dProduct, lora, masks));
      const factors = lora && dProduct && product ? factorGradients(p, { x: source, product, dProduct, masks, gradients, lora }) : updates.flatMap(() => [null, null]);
      return [parts.length > 0 ? sumOf(p, parts) : null, ...(residual ? [gradients[0] ?? null] : []), ...factors];
    },
  });
}

function sumOf(p: Primitives, terms: readonly Tensor[]): Tensor {
  const [first, second] = terms;
  invariant(first, 'a sum has a term');
  if (!second) return first;
  return terms.length === 2 ? p.add(first, second) : p.addAll(terms);
}
