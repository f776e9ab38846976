import { fits, labelsMatch, MEMORY_SHARE, selectorText, type MemoryModel } from '@tunefleet/domain-scheduling';
import { TunefleetError } from '@tunefleet/foundation';
import type { CausalLmDescription } from '@tunefleet/ml-models/specs';
import { estimateMemory, type TunerSpec } from '@tunefleet/ml-tuners/specs';
import type { WorkerRecord } from '@tunefleet/ports';

/** Bytes on the device by what they hold. */
export type MemoryNeed = Readonly<Record<string, number>>;

export type ComputeDtype = 'auto' | 'f32' | 'bf16';

const GIB = 1024 ** 3;
const F32_BYTES = 4;

/** `auto` becomes bf16 where some worker has it: such a worker can hold the job. */
export function dtypeForEstimate(asked: ComputeDtype, workers: readonly Pick<WorkerRecord, 'device'>[]): 'f32' | 'bf16' {
  if (asked !== 'auto') return asked;
  return workers.some(({ device }) => device.bf16) ? 'bf16' : 'f32';
}

/**
 * Training at its most frugal: one example a pass, every block computed again on the way back. A worker with room to spare takes more.
 * @throws invalid_input when the tuner matches nothing in the model
 */
export function fineTuneMemory({ model, tuner, tokens, dtype, rowsPerExample = 1 }: { readonly model: CausalLmDescription; readonly tuner: TunerSpec; readonly tokens: number; readonly dtype: 'f32' | 'bf16'; readonly rowsPerExample?: number }): MemoryNeed {
  const estimate = estimateMemory({ model, spec: tuner, computeDtype: dtype, rows: rowsPerExample, columns: tokens, recomputeBlocks: true });
  return { weights: estimate.weightBytes, adapter: estimate.adapterBytes, gradients: estimate.gradientBytes, optimiser: estimate.optimiserBytes, activations: estimate.activationBytes, logits: estimate.logitsBytes };
}

/**
 * Scoring row by row: weights, keys and values of all layers, one layer's intermediate results, logits of the answer.
 * @param adapterBytes of the largest adapter; one is loaded at a time
 */
export function evalMemory(model: CausalLmDescription, { tokens, dtype, adapterBytes }: { readonly tokens: number; readonly dtype: 'f32' | 'bf16'; readonly adapterBytes: number }): MemoryNeed {
  const width = dtype === 'bf16' ? 2 : F32_BYTES;
  const perToken = 4 * model.hiddenSize + 3 * model.intermediateSize + model.heads * tokens;
  return {
    weights: model.parameterCount * width,
    adapter: adapterBytes,
    cache: 2 * model.layers * model.keyValueHeads * model.headDim * tokens * width,
    activations: perToken * tokens * F32_BYTES,
    logits: model.vocabSize * tokens * F32_BYTES,
  };
}

export function totalBytes(need: MemoryNeed): number {
  return Object.values(need).reduce((sum, bytes) => sum + bytes, 0);
}

/** The estimate of what is on the device, by examples per pass where nothing is computed twice, to hold a measured peak against. */
export function fineTuneMemoryModel({ model, tuner, tokens, dtype, rowsPerExample = 1 }: Parameters<typeof fineTuneMemory>[0]): MemoryModel {
  const bytes = (rows: number): number => estimateMemory({ model, spec: tuner, computeDtype: dtype, rows: rows * rowsPerExample, columns: tokens }).deviceBytes;
  const one = bytes(1);
  const rowBytes = bytes(2) - one;
  return { fixedBytes: one - rowBytes, rowBytes };
}

type SizedWorker = Pick<WorkerRecord, 'name' | 'device' | 'labels'>;

export interface FitOptions {
  /** What jobs of this shape were measured to take, relative to the estimate. */
  readonly correction: number;
  readonly workerSelector: Readonly<Record<string, string>>;
  readonly advice: string;
}

/**
 * @param workers all on record, also those that are away: only what none of them could ever hold is refused. None with the labels asked for:
 *   nothing is refused, because one may come.
 * @throws out_of_device_memory with the estimate's parts
 */
export function requireFit(need: MemoryNeed, workers: readonly SizedWorker[], { correction, workerSelector, advice }: FitOptions): void {
  const eligible = workers.filter((worker) => labelsMatch(workerSelector, worker.labels));
  const largest = eligible.reduce<SizedWorker | null>((best, worker) => (best === null || worker.device.memoryBytesTotal > best.device.memoryBytesTotal ? worker : best), null);
  const total = totalBytes(need) * correction;
  if (largest === null || fits(total, largest.device.memoryBytesTotal)) return;
  const parts = Object.entries(need)
    .filter(([, bytes]) => bytes > 0)
    .map(([name, bytes]) => `${name} ${gib(bytes)}`);
  const measured = correction === 1 ? '' : `; ${correction.toFixed(2)} times that, as measured on jobs like it`;
  const labelled = Object.keys(workerSelector).length === 0 ? '' : ` with ${selectorText(workerSelector)}`;
  throw new TunefleetError(
    'out_of_device_memory',
    `the job needs about ${gib(total)} GiB of memory (${parts.join(', ')}${measured}), the largest worker${labelled}, ${largest.name}, has ${gib(largest.device.memoryBytesTotal)} GiB and gives a job ${MEMORY_SHARE * 100} % of it: ${advice}`,
    { reason: 'no_worker_large_enough', details: { need, correction, largestWorkerBytes: largest.device.memoryBytesTotal } },
  );
}

function gib(bytes: number): string {
  return bytes >= 10 * GIB ? (bytes / GIB).toFixed(0) : (bytes / GIB).toFixed(2);
}
