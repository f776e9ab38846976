import type { ArtifactRef, EvalResult, FineTuneResult } from '@tunefleet/contracts';
import { sha256Hex, type JsonObject } from '@tunefleet/foundation';
import type { JobRecord, MetricPointRecord } from '@tunefleet/ports';
import { buildCompletion, type CompletionDeps } from './completion';

const weights: ArtifactRef = { name: 'adapter_model.safetensors', sha256: 'a'.repeat(64), bytes: 10 };
const items: ArtifactRef = { name: 'items.jsonl', sha256: 'b'.repeat(64), bytes: 20 };

function job(kind: JobRecord['kind']): JobRecord {
  return {
    id: 'ftjob-1',
    kind,
    epoch: 1,
    spec: { fineTunedModel: 'ft:base:org::x' },
    workerSpec: { base: { id: 'base', revision: 'abc' }, tuner: { kind: 'lora' } },
  } as unknown as JobRecord;
}

const fineTuneResult: FineTuneResult = {
  steps: 1,
  trainedTokens: 1,
  lossTokens: 1,
  lossFirst: 2,
  lossLast: 1,
  validLoss: null,
  tokensPerSecond: 1,
  trainSeconds: 1,
  peakRssBytes: 1,
  peakDeviceBytes: 1,
  computeDtype: 'f32',
  trainableParameters: 1,
};
const evalResult: EvalResult = {
  metric: 'exact_match',
  candidates: [{ model: 'm', n: 1, correct: 1, accuracy: 1, interval: [0.2, 1] }],
  comparison: null,
  seconds: 1,
  peakRssBytes: 1,
};

function deps(points: readonly MetricPointRecord[] = []): CompletionDeps {
  const stored = new Map([weights, items].map((artifact) => [artifact.sha256, artifact.bytes]));
  return {
    records: {
      listMetrics: (_job, { sinceStep, limit }) => Promise.resolve(points.filter((point) => sinceStep === undefined || point.step > sinceStep).slice(0, limit)),
    },
    blobs: {
      stat: (sha256) => Promise.resolve(stored.has(sha256) ? { sha256, bytes: stored.get(sha256) ?? 0 } : null),
      put: async (source) => {
        const parts: Uint8Array[] = [];
        for await (const part of source) parts.push(part);
        const bytes = Buffer.concat(parts);
        return { sha256: sha256Hex(bytes), bytes: bytes.length };
      },
    },
    resultCsv: (all) => all.map((point) => `${point.step},${point.name},${point.value}`).join('\n'),
  };
}

test('a fine-tune job publishes its adapter under the name fixed at submit, with its metrics as a file', async () => {
  const completion = await buildCompletion(job('fine-tune'), fineTuneResult as unknown as JsonObject, [weights], deps([{ name: 'loss', step: 1, value: 2 }]));
  expect(completion).toEqual({
    result: fineTuneResult,
    artifacts: [weights],
    adapter: { name: 'ft:base:org::x', baseModel: 'base', baseRevision: 'abc', tunerKind: 'lora' },
    resultFiles: [{ filename: 'step_metrics.csv', bytes: 8, sha256: sha256Hex('1,loss,2') }],
    messages: ['New fine-tuned model created: ft:base:org::x', 'The job has successfully completed'],
  });
});

test('more metric points than one page: none is left out or written twice where a page ends within a step', async () => {
  const points = Array.from({ length: 7_000 }, (_, i) => ['grad_norm', 'loss', 'lr'].map((name) => ({ name, step: i + 1, value: i }))).flat();
  let seen: readonly MetricPointRecord[] = [];
  const base = deps(points);
  await buildCompletion(job('fine-tune'), fineTuneResult as unknown as JsonObject, [weights], {
    ...base,
    resultCsv: (all) => {
      seen = all;
      return '';
    },
  });
  expect(seen).toEqual(points);
});

test('an eval job keeps its items as the result file and publishes no adapter', async () => {
  const completion = await buildCompletion(job('eval'), evalResult as unknown as JsonObject, [items], deps());
  expect(completion.adapter).toBeUndefined();
  expect(completion.resultFiles).toEqual([{ filename: 'items.jsonl', bytes: 20, sha256: items.sha256 }]);
  expect(completion.messages).toEqual(['The job has successfully completed']);
});

test('refuses a result that does not fit its kind, and artifacts that are not stored in that size', async () => {
  await expect(buildCompletion(job('fine-tune'), { steps: 1 }, [weights], deps())).rejects.toMatchObject({ code: 'incompatible_artifact' });
  await expect(buildCompletion(job('fine-tune'), null, [weights], deps())).rejects.toMatchObject({ code: 'incompatible_artifact' });
  const wrongSize = { ...weights, bytes: 11 };
  await expect(buildCompletion(job('fine-tune'), fineTuneResult as unknown as JsonObject, [wrongSize], deps())).rejects.toThrow('reported but is not stored');
});
