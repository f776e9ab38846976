import { invariant } from '@tunefleet/foundation';
import { isFused } from '../../fused-primitives';
import type { Primitives } from '../../primitives';
import { customOp } from '../../tape/perform';
import { Tape } from '../../tape/tape';
import type { Tensor } from '../../tensor';
import { scatterRows } from '../layout/rows';
import { multiplyBack } from '../linear/frozen-matrix';
import { bent, slopeAt } from '../softcap/softcap';
import { logitRowsAtOnce } from './logit-chunks';
import { headLogits, headProduct, trainedOf, type OutputHead } from './output-head';

export interface HeadCrossEntropyResult {
  /** Sum of the rows' losses times `scale`; rank 0 f32, differentiable. */
  readonly loss: Tensor;
  /** Number of labelled rows whose label is the likeliest token; rank 0 f32. */
  readonly correct: Tensor;
}

/** Label of a row that carries no loss. */
const IGNORED = -100;

/**
 * Output head and cross entropy in one, over chunks of labelled rows only: neither the logits of all rows nor of unlabelled ones ever exist.
 * The gradients by the hidden states and by what is trained of the head are formed in the forward pass, chunk by chunk, when they are wanted.
 * @param hidden [N, C]   @param head [V, C]   @param labels N token ids, -100: no loss
 * @param options.scale usually 1 / (loss tokens of the optimiser step)
 */
export function headCrossEntropy(
  hidden: Tensor,
  head: OutputHead,
  labels: Int32Array,
  options: { readonly scale: number; readonly chunkRows?: number },
): HeadCrossEntropyResult {
  const device = hidden.device;
  const p = device.primitives;
  const inputs = [hidden, ...trainedOf(head)];
  const wanted = inputs.some((input) => device.tape?.isTracked(input)) && device.tape?.isProbing === false;
  const rows = labelledRows(labels, head.outSize);
  const [loss, correct] = customOp(device, {
    name: 'headCrossEntropy',
    inputs,
    run: () => {
      const sums: Tensor[] = [device.tensor(Float32Array.of(0), [], 'f32')];
      const hits: Tensor[] = [device.tensor(Float32Array.of(0), [], 'f32')];
      const parts: Tensor[] = [];
      let trained: readonly Tensor[] = [];
      for (const chunk of chunksOf(rows, head.outSize, options.chunkRows)) {
        const { sum, hit, dStates, dTrained } = device.scope(() => {
          const { losses, likeliest, ...part } = lossOfRows(hidden, head, chunk, labels, { wanted });
          return { ...part, sum: p.sumAll(losses), hit: p.sumAll(likeliest) };
        });
        sums.push(sum);
        hits.push(hit);
        if (dStates) parts.push(dStates);
        const before = trained;
        trained = before.length === 0 ? dTrained : dTrained.map((each, index) => p.add(before[index] as Tensor, each));
        if (before.length > 0) for (const tensor of [...before, ...dTrained]) tensor.dispose();
      }
      const outputs = [p.scale(p.addAll(sums), options.scale), p.addAll(hits)];
      const dHidden = parts.length > 0 ? scatterRows(p, parts, rows, hidden.dim(0)) : p.zeros(hidden.shape, hidden.dtype === 'bf16' ? 'bf16' : 'f32');
      return { outputs, save: wanted ? [dHidden, ...trained] : [] };
    },
    backward: ({ gradients: [g], saved }) => {
      if (!g) return [];
      const factor = p.scale(g, options.scale);
      return saved.map((gradient) => p.mul(gradient, p.cast(factor, gradient.dtype)));
    },
  });
  invariant(loss && correct, 'two outputs');
  return { loss, correct };
}

/** The rows in pieces whose logits are held at once. */
export function chunksOf(rows: Int32Array, vocabulary: number, chunkRows?: number): Int32Array[] {
  const step = chunkRows ?? logitRowsAtOnce(rows.length, vocabulary);
  const chunks: Int32Array[] = [];
  for (let begin = 0; begin < rows.length; begin += step) chunks.push(rows.subarray(begin, begin + step));
  return chunks;
}

export function labelledRows(labels: Int32Array, vocabulary: number): Int32Array {
  const rows: number[] = [];
  labels.forEach((label, row) => {
    if (label === IGNORED) return;
    invariant(label >= 0 && label < vocabulary, `label ${label} of row ${row} is outside the vocabulary of ${vocabulary}`);
    rows.push(row);
  });
  return Int32Array.from(rows);
}

interface ChunkLoss {
  /** [n] f32 */
  readonly losses: Tensor;
  /** [n] f32: 1 where the label is the likeliest token, else 0. */
  readonly likeliest: Tensor;
  readonly dStates: Tensor | null;
  /** In the order of `trainedOf`. */
  readonly dTrained: readonly Tensor[];
}

/** @param options.slopes [n] factors of the rows in the gradients; absent: 1 */
export function lossOfRows(hidden: Tensor, head: OutputHead, rows: Int32Array, labels: Int32Array, { wanted, slopes }: { readonly wanted: boolean; readonly slopes?: Float32Array }): ChunkLoss {
  const device = hidden.device;
  const p = device.primitives;
  const softcap = head.softcap ?? null;
  const chosen = Int32Array.from(rows, (row) => labels[row] ?? 0);
  const states = p.gather(hidden, device.tensor(Int32Array.from(rows), [rows.length], 'i32')); // [n, C]
  const trained = trainedOf(head);
  const tape = wanted && trained.length > 0 ? Tape.start(device, [states, ...trained]) : null;
  try {
    const product = tape ? tape.recording(() => headProduct(states, head)) : null;
    using logits = product ? capped(p, product, softcap) : headLogits(states, head); // [n, V]
    const [losses, likeliest, plain] = crossEntropy(logits, device.tensor(chosen, [rows.length], 'i32'));
    if (softcap === null || !wanted) logits.dispose();
    if (!wanted) return { losses, likeliest, dStates: null, dTrained: [] };
    const gradient = slopes === undefined ? plain : p.mul(plain, device.tensor(slopes, [rows.length, 1], 'f32'));
    if (gradient !== plain) plain.dispose();
    const dProduct = p.cast(softcap === null ? gradient : belowCap(p, gradient, logits, softcap), hidden.dtype);
    gradient.dispose();
    if (!tape || !product) return { losses, likeliest, dStates: multiplyBack(dProduct, head), dTrained: [] };
    tape.walk([[product, dProduct]]);
    const taken = [states, ...trained].map((source) => tape.take(source) ?? p.zeros(source.shape, source.dtype === 'bf16' ? 'bf16' : 'f32'));
    return { losses, likeliest, dStates: taken[0] as Tensor, dTrained: taken.slice(1) };
  } finally {
    tape?.dispose();
  }
}

/** @returns losses [n], 1 where the label is the likeliest token, else 0 [n], and the gradient softmax - onehot [n, V] */
function crossEntropy(logits: Tensor, labels: Tensor): readonly [losses: Tensor, likeliest: Tensor, gradient: Tensor] {
  const p = logits.device.primitives;
  if (isFused(logits)) return logits.device.fused.crossEntropy(logits, labels);
  const [losses, gradient] = p.softmaxCrossEntropy(logits, labels);
  // The row maximum of the gradient is the likeliest other token's probability, unless that token is the label.
  const likeliestOther = p.reduce('max', gradient, [1]);
  const likeliest = p.cast(p.compare('greaterEqual', p.unary('exp', p.unary('neg', losses)), likeliestOther), 'f32');
  return [losses, likeliest, gradient];
}

function capped(p: Primitives, product: Tensor, softcap: number | null): Tensor {
  const logits = p.cast(product, 'f32');
  return softcap === null ? logits : bent(p, logits, softcap);
}

/** The gradient by the logits before the cap. Takes over both. */
function belowCap(p: Primitives, gradient: Tensor, logits: Tensor, softcap: number): Tensor {
  using slope = slopeAt(p, logits, softcap);
  logits.dispose();
  const product = p.mul(gradient, slope);
  gradient.dispose();
  return product;
}
