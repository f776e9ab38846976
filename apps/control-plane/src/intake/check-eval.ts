import { evalRequestSchema, evalSpecSchema } from '@tunefleet/contracts';
import { PROBLEMS_KEPT, datasetError, type DatasetProblem } from '@tunefleet/domain-datasets';
import { TunefleetError, invariant, type JsonObject } from '@tunefleet/foundation';
import type { JobRecord } from '@tunefleet/ports';
import { describeBase, findNamedModel } from './base-model';
import { checkFile, recordDataset, type CheckedFile } from './check-file';
import type { Checked, IntakeDeps } from './intake-deps';
import { evalShape } from './job-shape';
import { dtypeForEstimate, evalMemory, requireFit, totalBytes } from './memory';
import { sayOnce } from './messages';
import { candidatesOf, labelProblem, lineUp } from './plan-eval';
import { settleSequenceLength } from './sequence-length';
import { sideBySide } from './side-by-side';

const FILE = 'file';

export async function checkEval(job: JobRecord, deps: IntakeDeps): Promise<Checked> {
  const { records, resolver, signal } = deps;
  const parsed = evalRequestSchema.safeParse(job.spec);
  invariant(parsed.success, `the record of job ${job.id} does not hold an eval request`);
  const request = parsed.data;

  const judged = await findNamedModel(records, job.teamId, request.model, 'model');
  const compareTo = await Promise.all(request.compareTo.map((name) => findNamedModel(records, job.teamId, name, 'compare_to')));
  const together = lineUp(judged, compareTo);
  const problems: DatasetProblem[] = [];
  let position = 0;
  const [base, workers, , checked] = await sideBySide([
    describeBase(resolver, together.baseId, { revision: together.revision, param: 'model', signal }),
    records.listWorkers(),
    sayOnce(records, job.id, 'info', `Validating evaluation file: ${request.file}`),
    checkFile(deps, job.teamId, request.file, {
      param: FILE,
      artifactName: 'eval.jsonl',
      minExamples: 1,
      onRow: (row, line) => {
        position += 1;
        const problem = labelProblem(request, row, { line, position });
        if (problem !== null) problems.push(problem);
      },
    }),
  ]);
  if (problems.length > 0) throw answersError(problems, checked);

  const length = settleSequenceLength({ asked: request.maxSequenceLength, maxPositions: base.model.maxPositions, files: [{ param: FILE, lengths: checked.lengths }] });
  const candidates = candidatesOf(together);
  const need = evalMemory(base.model, {
    tokens: length.tokensExpected,
    dtype: dtypeForEstimate(request.computeDtype, workers),
    adapterBytes: Math.max(0, ...candidates.map(({ adapter = [] }) => adapter.reduce((sum, { bytes }) => sum + bytes, 0))),
  });
  // Of evals only the time is measured.
  requireFit(need, workers, { correction: 1, workerSelector: job.workerSelector, advice: 'choose a smaller base model, or shorter rows' });

  const workerSpec = evalSpecSchema.parse({
    base: base.ref,
    candidates,
    file: checked.artifact,
    metric: request.metric,
    ...(request.limit === null ? {} : { limit: request.limit }),
    samples: request.samples,
    maxSequenceLength: length.maxSequenceLength,
    computeDtype: request.computeDtype,
    baseQuantisation: request.baseQuantisation,
  });
  const dataset = await recordDataset(deps, checked);
  return {
    admission: {
      spec: { ...job.spec, maxSequenceLength: length.maxSequenceLength },
      workerSpec: workerSpec as unknown as JsonObject,
      totalSteps: Math.min(request.limit ?? Infinity, checked.report.examples),
      memoryBytesEstimate: totalBytes(need),
      weightBytes: need['weights'] ?? 0,
      shape: evalShape({ base: base.ref, tokens: length.tokensExpected, metric: request.metric.type }),
      trainingDatasetId: null,
      validationDatasetId: dataset.id,
    },
    notices: [...base.notices, ...length.notices],
  };
}

/** The code is the one by which a worker refuses such a row. */
function answersError(problems: readonly DatasetProblem[], { report }: CheckedFile): TunefleetError {
  const { message, details } = datasetError({ ...report, problems: problems.slice(0, PROBLEMS_KEPT), problemCount: problems.length }, FILE);
  return new TunefleetError('invalid_input', message, { reason: 'answer_not_a_label', param: FILE, details });
}
