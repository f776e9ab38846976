import type { FineTuneRequest } from '@tunefleet/contracts';
import { parseTunerSpec } from '@tunefleet/ml-tuners/specs';
import { fineTuneMemory, totalBytes } from './memory';
import { planSharing, type SharingFacts } from './sharing';
import { tinyDescription } from './testing/tiny-description';

const base = { id: 'o/m', revision: 'r1' };
const tuner = (fields: { readonly kind: string; readonly [field: string]: unknown } = { kind: 'lora' }) => parseTunerSpec(fields);

function facts(changes: Partial<Omit<SharingFacts, 'workerSpec' | 'request'>> & { readonly workerSpec?: Partial<SharingFacts['workerSpec']>; readonly request?: Partial<FineTuneRequest> } = {}): SharingFacts {
  const { workerSpec, request, ...others } = changes;
  const memory = fineTuneMemory({ model: tinyDescription, tuner: others.tuner ?? tuner(), tokens: 64, dtype: 'f32' });
  return {
    ...{ model: tinyDescription, tuner: tuner(), examples: 100, tokensExpected: 6_000, memory, ...others },
    request: { ...request },
    workerSpec: { base, computeDtype: 'auto', batchSize: 8, epochs: 3, ...workerSpec },
  };
}

const keyOf = (changes: Parameters<typeof facts>[0] = {}): string => {
  const planned = planSharing(facts(changes));
  return 'sharing' in planned ? planned.sharing.key : planned.alone;
};

test('a small job may share with jobs on its base that compute alike, whatever else they train', () => {
  expect(keyOf()).toBe('o/m@r1|auto|as-published|supervised|blocks');
  for (const other of [tuner({ kind: 'lora', r: 32, use_dora: true }), tuner({ kind: 'ia3' }), tuner({ kind: 'adapter' })]) expect(keyOf({ tuner: other })).toBe(keyOf());
  expect(keyOf({ request: { share: true }, workerSpec: { batchSize: 2, epochs: 1 }, examples: 10, tokensExpected: 900 })).toBe(keyOf());
});

test.each<[string, Parameters<typeof facts>[0]]>([
  ['revision', { workerSpec: { base: { ...base, revision: 'r2' } } }],
  ['precision', { workerSpec: { computeDtype: 'bf16' } }],
  ['quantisation', { tuner: tuner({ kind: 'qlora' }) }],
  ['method', { request: { method: 'dpo' } }],
  ['place of what is trained', { tuner: tuner({ kind: 'restuning-bypass' }), workerSpec: { epochs: 1 } }],
])('not with jobs of another %s', (_what, changes) => {
  const keys = [keyOf(changes), keyOf()];
  expect(keys[0]).toMatch(/^o\/m@r\d(\|[a-z0-9-]+){4}$/);
  expect(keys[0]).not.toBe(keys[1]);
});

test.each<[string, Parameters<typeof facts>[0]]>([
  ['it was declined', { request: { share: false } }],
  ['Prompt tuning cannot share its passes', { tuner: tuner({ kind: 'prompt-tuning' }) }],
  ['LoRA cannot share its passes', { tuner: tuner({ kind: 'lora', modules_to_save: ['model.norm'] }) }],
  ['its steps have about 513 tokens, and those of jobs that share at most 512', { workerSpec: { batchSize: 1 }, examples: 10, tokensExpected: 5_121 }],
  ['faster alone', { tuner: tuner({ kind: 'lora', layers_to_transform: [1], target_modules: ['q_proj'] }) }],
  ['faster alone', { tuner: tuner({ kind: 'restuning-bypass' }) }],
])('a worker to itself: %s', (reason, changes) => expect(keyOf(changes)).toContain(reason));

test('what is computed once for all epochs counts only where there are several, without noise', () => {
  const last = tuner({ kind: 'lora', layers_to_transform: [1], target_modules: ['q_proj'] });
  for (const workerSpec of [{ epochs: 1 }, { neftuneNoiseAlpha: 5 }]) expect(keyOf({ tuner: last, workerSpec })).toBe(keyOf());
});

test('a step never has more than all examples', () => {
  expect(keyOf({ examples: 4, tokensExpected: 500, workerSpec: { batchSize: 256 } })).toBe(keyOf());
});

test('beside others it adds all of its memory but the weights', () => {
  const given = facts();
  const planned = planSharing(given);
  const { weights = 0 } = given.memory;
  expect(weights).toBeGreaterThan(0);
  expect(planned).toMatchObject({ sharing: { memoryBytes: totalBytes(given.memory) - weights } });
});
