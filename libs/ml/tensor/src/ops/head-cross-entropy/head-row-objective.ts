import { invariant } from '@tunefleet/foundation';
import { customOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';
import { scatterRows } from '../layout/rows';
import { chunksOf, labelledRows, lossOfRows } from './head-cross-entropy';
import { trainedOf, type OutputHead } from './output-head';

export interface JudgedRows {
  readonly value: number;
  /** [n] derivative of the value by each row's cross entropy. */
  readonly slopes: Float32Array;
}

/**
 * Any loss that depends on the labelled rows through their cross entropies l_i = -log p(label_i): value = judge(l), dx_i = slope_i · dl_i/dx_i.
 * Chunked as `headCrossEntropy` is. The slopes are known once all rows are, so the rows' own gradients are kept [n, C] and scaled then; what is trained of the
 * head sums over rows and is computed a second time, with the slopes.
 * @param hidden [N, C]   @param head [V, C]   @param labels N token ids, -100: no loss
 * @param judge gets [n] cross entropies of the labelled rows, in their order, and [n] whether the label is the likeliest token, 1 or 0
 * @returns the value; rank 0 f32, differentiable
 */
export function headRowObjective(hidden: Tensor, head: OutputHead, labels: Int32Array, judge: (losses: Float32Array, likeliest: Float32Array) => JudgedRows, options: { readonly chunkRows?: number } = {}): Tensor {
  const device = hidden.device;
  const p = device.primitives;
  const trainedParts = trainedOf(head);
  const inputs = [hidden, ...trainedParts];
  const wanted = inputs.some((input) => device.tape?.isTracked(input)) && device.tape?.isProbing === false;
  const twice = wanted && trainedParts.length > 0;
  const rows = labelledRows(labels, head.outSize);
  const [loss] = customOp(device, {
    name: 'headRowObjective',
    inputs,
    run: () => {
      const chunks = chunksOf(rows, head.outSize, options.chunkRows);
      const [losses, likeliest] = [new Float32Array(rows.length), new Float32Array(rows.length)];
      const parts: Tensor[] = [];
      let at = 0;
      for (const chunk of chunks) {
        const dStates = device.scope(() => {
          const { losses: own, likeliest: hits, dStates: gradient } = lossOfRows(hidden, head, chunk, labels, { wanted: wanted && !twice });
          losses.set(device.readFloats(own), at);
          likeliest.set(device.readFloats(hits), at);
          return gradient;
        });
        if (dStates) parts.push(dStates);
        at += chunk.length;
      }
      const { value, slopes } = judge(losses, likeliest);
      invariant(slopes.length === rows.length, 'a slope per labelled row');
      const output = device.tensor(Float32Array.of(value), [], 'f32');
      if (!wanted) return { outputs: [output], save: [] };
      let trained: readonly Tensor[] = [];
      at = 0;
      for (const [index, chunk] of chunks.entries()) {
        const factors = slopes.slice(at, at + chunk.length);
        at += chunk.length;
        if (!twice) {
          const whole = parts[index] as Tensor;
          parts[index] = device.scope(() => p.cast(p.mul(p.cast(whole, 'f32'), device.tensor(factors, [chunk.length, 1], 'f32')), whole.dtype as 'f32' | 'bf16'));
          whole.dispose();
          continue;
        }
        const { dStates, dTrained } = device.scope(() => {
          const part = lossOfRows(hidden, head, chunk, labels, { wanted: true, slopes: factors });
          return { dStates: part.dStates as Tensor, dTrained: part.dTrained };
        });
        parts.push(dStates);
        const before = trained;
        trained = before.length === 0 ? dTrained : dTrained.map((each, i) => p.add(before[i] as Tensor, each));
        if (before.length > 0) for (const tensor of [...before, ...dTrained]) tensor.dispose();
      }
      const dHidden = parts.length > 0 ? scatterRows(p, parts, rows, hidden.dim(0)) : p.zeros(hidden.shape, hidden.dtype === 'bf16' ? 'bf16' : 'f32');
      return { outputs: [output], save: [dHidden, ...trained] };
    },
    backward: ({ gradients: [g], saved }) => (g ? saved.map((gradient) => p.mul(gradient, p.cast(g, gradient.dtype))) : []),
  });
  return loss as Tensor;
}
