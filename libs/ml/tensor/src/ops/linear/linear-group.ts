import { invariant } from '@tunefleet/foundation';
import type { Primitives } from '../../primitives';
import { customOp } from '../../tape/perform';
import type { Additions } from '../../fused-ops';
import type { Tensor } from '../../tensor';
import { fusedBack, fusedForward, multiplyBack, multiplyForward, type FrozenMap } from './frozen-matrix';
import { dropsInput } from './input-dropout';
import { factorGradients, inputBranch, narrowProduct, productGradient, type LoraBundle } from './lora-bundle';
import { shiftGradients } from './output-shift';
import { droppedProduct, gainedInputGradients, magnitudeGradients, withGain, type WeightDecomposition } from './weight-decomposition';

export interface LinearGroupOptions {
  /** Low-rank updates of the maps, in the dtype of the input. */
  readonly lora?: LoraBundle | null;
  /** [N, out], added to the output of a group of one map. */
  readonly residual?: Tensor | null;
}

/**
 * Frozen linear maps of one input, with their low-rank updates: y_i = x W_iᵀ + bias_i + (drop(x) Aᵀ) B_i, plus the residual.
 * Outputs with decomposed weights (`Magnitude`) have (x W_iᵀ + (x Aᵀ) B_i) times a gain in place of the first and last term.
 * Shifts are added to outputs as a bias is.
 * What the maps share is done once: the narrow product x Aᵀ, its gradient, and the sum of the gradients by x.
 * Keeps x, the narrow product [N, R] and dropout masks; with decomposed weights also what the gain multiplies, [N, out_i].
 * @param x [N, in] in the compute dtype; weights of another one are cast as they are used
 * @returns per map [N, out_i]
 */
export function linearGroup(x: Tensor, maps: readonly FrozenMap[], { lora = null, residual = null }: LinearGroupOptions = {}): readonly Tensor[] {
  invariant(!residual || maps.length === 1, `a residual goes with one map, not ${maps.length}`);
  const p = x.device.primitives;
  const updates = lora?.updates ?? [];
  const extra = residual ? [residual] : [];
  const decomposition = lora?.decomposition ?? null;
  return customOp(x.device, {
    name: 'linearGroup',
    inputs: [x, ...extra, ...updates.flatMap(({ a, b, gradientTo }) => [gradientTo?.a ?? a, gradientTo?.b ?? b]), ...(decomposition?.magnitudes ?? []).map(({ magnitude }) => magnitude), ...(lora?.shifts ?? []).map(({ value, gradientTo }) => gradientTo ?? value)],
    run: () => {
      const narrow = lora ? narrowProduct(p, x, lora) : null;
      const known: Tensor[] = [];
      const plain = !lora || (lora.decomposition === null && lora.shift.every((shift) => shift === null));
      const outputs = maps.map((map, index) => {
        const b = lora?.b[index] ?? null;
        const whole = plain && fusedForward(x, map.weight, { bias: map.bias, residual, lowRank: narrow && b ? { narrow: narrow.product, update: b } : null });
        if (whole) return whole;
        let base = multiplyForward(x, map.weight);
        const gain = decomposition?.gains[index];
        if (lora && narrow && gain) {
          const gained = dropsInput(lora) ? droppedProduct(p, x, { map, index }, lora, narrow.masks) : base;
          known.push(gained);
          base = withGain(p, base, gained, gain, lora);
        }
        const terms = [map.bias ? p.add(base, map.bias) : base, ...(narrow && b ? [p.matMul(narrow.product, b)] : []), ...extra];
        const shift = lora?.shift[index];
        if (shift) terms[0] = p.add(terms[0] as Tensor, shift);
        return sumOf(p, terms);
      });
      // First what the backward pass reads, then what it reads from the bundle and the maps.
      const held = lora && narrow ? [narrow.product, ...narrow.masks, ...known, lora.a, ...present(lora.b), ...heldBy(decomposition), ...present(lora.shift)] : [];
      return { outputs, save: [x, ...held, ...maps.map(({ weight }) => weight.value)] };
    },
    backward: ({ gradients, saved, needs }) => {
      const [source, product] = saved;
      if (!source) return [];
      const parts: Tensor[] = [];
      if (!lora) return [needs[0] ? inputGradient(gradients, maps) : null, ...(residual ? [gradients[0] ?? null] : [])];
      const maskCount = updates.filter(({ dropout }) => dropout).length;
      const masks = saved.slice(2, 2 + maskCount);
      let at = 2 + maskCount;
      const known = maps.map((_, index) => (decomposition?.gains[index] ? (saved[at++] ?? null) : null));
      const dProduct = productGradient(p, gradients, lora);
      const plain = lora.decomposition === null && !dropsInput(lora);
      if (needs[0] && plain) parts.push(...present([inputGradient(gradients, maps, dProduct && { narrow: dProduct, update: lora.a })]));
      else if (needs[0]) {
        gradients.forEach((g, index) => g && parts.push(...gainedInputGradients(p, g, { map: maps[index] as FrozenMap, index }, lora, masks)));
        if (dProduct) parts.push(inputBranch(p, dProduct, lora, masks));
      }
      const trained = dProduct && product ? factorGradients(p, { x: source, product, dProduct, masks, gradients, lora }) : null;
      return [
        parts.length > 0 ? sumOf(p, parts) : null,
        ...(residual ? [gradients[0] ?? null] : []),
        ...(trained?.factors ?? updates.flatMap(() => [null, null])),
        ...(trained ? magnitudeGradients(p, gradients, known, trained.dFactors, lora) : (decomposition?.magnitudes ?? []).map(() => null)),
        ...shiftGradients(p, gradients, lora),
      ];
    },
  });
}

/** The sum of g_i W_i, and of the low-rank product, by fused ops one upon the other; null where no gradient comes. */
function inputGradient(gradients: readonly (Tensor | null)[], maps: readonly FrozenMap[], lowRank: Additions<Tensor>['lowRank'] = null): Tensor | null {
  const parts: Tensor[] = [];
  let pending = lowRank;
  gradients.forEach((g, index) => {
    if (!g) return;
    const { weight } = maps[index] as FrozenMap;
    const before = parts.at(-1) ?? null;
    const whole = fusedBack(g, weight, { residual: before, lowRank: pending });
    if (!whole) return void parts.push(multiplyBack(g, weight));
    before?.dispose();
    parts.splice(0, parts.length, whole);
    pending = null;
  });
  const [first] = parts;
  if (!first) return null;
  const p = first.device.primitives;
  return sumOf(p, pending ? [...parts, p.matMul(pending.narrow, pending.update)] : parts);
}

function present(tensors: readonly (Tensor | null)[]): Tensor[] {
  return tensors.filter((tensor) => tensor !== null);
}

function heldBy(decomposition: WeightDecomposition | null): Tensor[] {
  if (!decomposition) return [];
  const { wideGains, gains, norms, factors } = decomposition;
  return [wideGains, gains, norms, factors].flatMap(present);
}

function sumOf(p: Primitives, terms: readonly Tensor[]): Tensor {
  const [first, second] = terms;
  invariant(first, 'a sum has a term');
  if (!second) return first;
  return terms.length === 2 ? p.add(first, second) : p.addAll(terms);
}
