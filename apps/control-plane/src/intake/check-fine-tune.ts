import { fineTuneRequestSchema, fineTuneSpecSchema, type FineTuneRequest } from '@tunefleet/contracts';
import { parsePreferenceRow, parseTextRow, type AnyDatasetRow } from '@tunefleet/domain-datasets';
import { invariant, type JsonObject } from '@tunefleet/foundation';
import { parseTunerSpec, type TunerSpec } from '@tunefleet/ml-tuners/specs';
import type { JobRecord } from '@tunefleet/ports';
import { describeBase, findNamedModel, type NamedModel } from './base-model';
import { checkFile, recordDataset, type CheckedFile, type CheckFileOptions } from './check-file';
import type { Checked, IntakeDeps } from './intake-deps';
import { requireFit, totalBytes } from './memory';
import { sayOnce } from './messages';
import { planFineTune } from './plan-fine-tune';
import { sideBySide } from './side-by-side';
import { continuedTuner } from './start-adapter';

export async function checkFineTune(job: JobRecord, deps: IntakeDeps): Promise<Checked> {
  const { records, resolver, signal } = deps;
  const parsed = fineTuneRequestSchema.safeParse(job.spec);
  invariant(parsed.success, `the record of job ${job.id} does not hold a fine-tune request`);
  const request = parsed.data;

  const named = await findNamedModel(records, job.teamId, request.model, 'model');
  const [base, tuner, files, workers] = await sideBySide([
    describeBase(resolver, named.baseId, { revision: named.adapter?.baseRevision, param: 'model', signal }),
    settleTuner(request, named, job.teamId, deps),
    checkFiles(job, request, deps),
    records.listWorkers(),
  ]);
  const plan = planFineTune({ request, base: base.ref, model: base.model, tuner, startAdapter: named.adapter?.artifacts ?? null, ...files, workers });
  const [correction, training, validation, mayShare] = await sideBySide([
    records.memoryCorrection(plan.shape),
    recordDataset(deps, files.training),
    files.validation === null ? null : recordDataset(deps, files.validation),
    plan.sharing !== null && records.sharesWorkers(job.teamId),
  ]);
  requireFit(plan.memory, workers, { correction, workerSelector: job.workerSelector, advice: 'choose a smaller base model, a lower rank, shorter rows or a smaller max_seq_length' });
  return {
    admission: {
      spec: { ...job.spec, ...(plan.settled as unknown as JsonObject) },
      workerSpec: plan.workerSpec as unknown as JsonObject,
      totalSteps: plan.totalSteps,
      memoryBytesEstimate: totalBytes(plan.memory),
      weightBytes: plan.memory['weights'] ?? 0,
      shape: plan.shape,
      memoryModel: plan.memoryModel,
      ...(mayShare && plan.sharing !== null ? { sharing: plan.sharing } : {}),
      trainingDatasetId: training.id,
      validationDatasetId: validation?.id ?? null,
    },
    notices: [...base.notices, ...plan.notices, ...(request.share === true && plan.sharing !== null && !mayShare ? [TEAM_DOES_NOT_SHARE] : [])],
  };
}

const TEAM_DOES_NOT_SHARE = 'share: the job gets a worker to itself: your team has not switched sharing on, which an admin can';

/** Also checks the request's tuner against its schema: the record may have been written by an older version. */
async function settleTuner(request: FineTuneRequest, { name, adapter }: NamedModel, teamId: string, { records }: IntakeDeps): Promise<TunerSpec> {
  const asked = parseTunerSpec(request.tuner);
  if (adapter === null) return asked;
  const source = await records.getJob(teamId, adapter.jobId);
  const parsed = fineTuneSpecSchema.safeParse(source?.workerSpec);
  invariant(parsed.success, `the job ${adapter.jobId} that made ${name} has no worker spec`);
  return continuedTuner(request.asked?.tuner === null ? null : asked, { own: parseTunerSpec(parsed.data.tuner), modelName: name });
}

/** What rows a method learns from; absent: supervised. Plain text may be one document. */
const ROWS = {
  supervised: { readAs: 'supervised' },
  dpo: { readAs: 'dpo', parse: parsePreferenceRow },
  pretraining: { readAs: 'pretraining', parse: parseTextRow, minExamples: 1 },
} satisfies Record<NonNullable<FineTuneRequest['method']> | 'supervised', Partial<CheckFileOptions<AnyDatasetRow>>>;

async function checkFiles(job: JobRecord, { trainingFile, validationFile, method }: FineTuneRequest, deps: IntakeDeps): Promise<{ training: CheckedFile; validation: CheckedFile | null }> {
  const { records } = deps;
  const rows: Partial<CheckFileOptions<AnyDatasetRow>> = ROWS[method ?? 'supervised'];
  const [, training] = await sideBySide([
    sayOnce(records, job.id, 'info', `Validating training file: ${trainingFile}`),
    checkFile<AnyDatasetRow>(deps, job.teamId, trainingFile, { param: 'training_file', artifactName: 'training.jsonl', ...rows }),
  ]);
  if (validationFile === null) return { training, validation: null };
  const [, validation] = await sideBySide([
    sayOnce(records, job.id, 'info', `Validating validation file: ${validationFile}`),
    checkFile<AnyDatasetRow>(deps, job.teamId, validationFile, { param: 'validation_file', artifactName: 'validation.jsonl', ...rows, minExamples: 1, training: training.report }),
  ]);
  return { training, validation };
}
