import type { FineTuneSpec } from '@tunefleet/contracts';
import type { TokenisedDataset } from '@tunefleet/ml-data';
import { describeCausalLm } from '@tunefleet/ml-models';
import { stemCacheBytes } from '@tunefleet/ml-training';
import { specHalfOf, type TunerSpec } from '@tunefleet/ml-tuners';
import { stemBudgetBytes } from '../runtime/device-limits';
import type { OpenedModel } from '../runtime/engine-resources';
import type { JobContext } from '../runtime/job-context';

export interface StemsRequest {
  readonly opened: OpenedModel;
  readonly tuner: TunerSpec;
  readonly datasets: readonly TokenisedDataset[];
  /** Bytes a step takes. */
  readonly stepBytes: number;
  /** What a run that goes on settled for; null: a new one. */
  readonly before: boolean | null;
}

/** Whether what the blocks give is kept on the host: for a bypass of several epochs, where there is room. Said in the log. */
export function chooseKeepStems({ spec, events, engine }: JobContext<FineTuneSpec>, { opened, tuner, datasets, stepBytes, before }: StemsRequest): boolean {
  const description = describeCausalLm(opened.config);
  const states = specHalfOf(tuner).stemStates?.(tuner, description);
  // Noise on the embeddings is new in every epoch.
  if (states === undefined || spec.epochs === 1 || spec.neftuneNoiseAlpha !== undefined || before === false) return false;
  const bytes = datasets.reduce((sum, dataset) => sum + stemCacheBytes(dataset, states, description.hiddenSize, opened.computeDtype), 0);
  const budget = stemBudgetBytes(engine.device, stepBytes);
  if (bytes <= budget) {
    events.log('info', `the base model runs in the first epoch only: ${megabytes(bytes)} MB of its hidden states are kept in memory, in ${opened.computeDtype}`);
    return true;
  }
  const lasting = before === true ? ' The run kept them before it was stopped, so losses may differ in the last digits from here on.' : '';
  events.log('warn', `the base model runs in every epoch: keeping its hidden states would take ${megabytes(bytes)} MB, ${Math.floor(budget / 1e6)} MB are to spare. A larger stem_stride needs less.${lasting}`);
  return false;
}

function megabytes(bytes: number): string {
  return Math.ceil(bytes / 1e6).toString();
}
