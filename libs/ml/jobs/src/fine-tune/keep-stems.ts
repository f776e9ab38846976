import type { FineTuneSpec } from '@tunefleet/contracts';
import type { TokenisedDataset } from '@tunefleet/ml-data';
import { describeCausalLm } from '@tunefleet/ml-models';
import { stemCacheBytes, type KeptStems } from '@tunefleet/ml-training';
import { fixedStates, type TunerSpec } from '@tunefleet/ml-tuners';
import { stemBudgetBytes } from '../runtime/device-limits';
import type { OpenedModel } from '../runtime/engine-resources';
import type { JobContext } from '../runtime/job-context';

export interface StemsRequest {
  readonly opened: OpenedModel;
  readonly tuner: TunerSpec;
  readonly datasets: readonly TokenisedDataset[];
  /** Bytes a step takes. */
  readonly stepBytes: number;
  /** What may be kept on disk. */
  readonly diskBytes: number;
  /** Bytes that a run that goes on settled for; null: a new one. */
  readonly before: number | null;
}

/**
 * Whether, and how much of, what the blocks before the first trained one give is kept over several epochs: in memory, then on disk, else it is computed again.
 * Said in the log. @returns null: nothing
 */
export function chooseKeptStems({ spec, events, engine, outputDir }: JobContext<FineTuneSpec>, { opened, tuner, datasets, stepBytes, diskBytes: diskRoom, before }: StemsRequest): KeptStems | null {
  const description = describeCausalLm(opened.config);
  const fixed = fixedStates(tuner, description);
  // Noise on the embeddings is new in every epoch.
  if (fixed === null || spec.epochs === 1 || spec.neftuneNoiseAlpha !== undefined || before === 0) return null;
  const all = datasets.reduce((sum, dataset) => sum + stemCacheBytes(dataset, fixed, description.hiddenSize, opened.computeDtype), 0);
  const wanted = Math.min(all, before ?? all);
  const hostBytes = Math.min(wanted, stemBudgetBytes(engine.device, stepBytes));
  const diskBytes = hostBytes < wanted ? Math.min(wanted - hostBytes, diskRoom) : 0;
  const bytes = Math.floor(hostBytes + diskBytes);
  const blocks = fixed.untouchedBlocks === 0 || fixed.untouchedBlocks === description.layers ? 'the base model' : `the first ${fixed.untouchedBlocks} of ${description.layers} blocks`;
  const runs = fixed.untouchedBlocks > 1 && fixed.untouchedBlocks < description.layers ? 'run' : 'runs';
  const kept = `${megabytes(bytes)} MB of hidden states are kept${diskBytes > 0 ? `, ${megabytes(diskBytes)} MB of them on disk` : ' in memory'}, in ${opened.computeDtype}`;
  if (bytes === all) events.log('info', `${blocks} ${runs} in the first epoch only: ${kept}`);
  else events.log('info', `${blocks} ${runs} again in later epochs for the examples there is no room for: ${kept}, ${megabytes(all)} MB would be all`);
  if (before !== null && bytes < wanted) events.log('warn', 'the run kept more hidden states before it was stopped, so losses may differ in the last digits from here on');
  return { untouchedBlocks: fixed.untouchedBlocks, bytes, hostBytes, directory: diskBytes > 0 ? outputDir : null };
}

function megabytes(bytes: number): string {
  return Math.ceil(bytes / 1e6).toString();
}
