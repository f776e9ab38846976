import type { EvalRequest } from '@tunefleet/contracts';
import type { DatasetRow } from '@tunefleet/domain-datasets';
import type { NamedModel } from './base-model';
import { candidatesOf, labelProblem, lineUp } from './plan-eval';

const base: NamedModel = { name: 'o/m', baseId: 'o/m', adapter: null };
const tuned = (name: string, revision = 'r1', baseId = 'o/m'): NamedModel => ({
  name,
  baseId,
  adapter: { id: 'adp', teamId: 't', jobId: 'j', name, baseModel: baseId, baseRevision: revision, tunerKind: 'lora', artifacts: [{ name: 'adapter_config.json', sha256: 'a'.repeat(64), bytes: 1 }], createdAt: new Date(0) },
});

test('the judged model comes last, with its adapter, on the revision it was tuned on', () => {
  const together = lineUp(tuned('ft:a'), [base]);
  expect(together).toMatchObject({ baseId: 'o/m', revision: 'r1' });
  expect(candidatesOf(together)).toEqual([{ model: 'o/m' }, { model: 'ft:a', adapter: [{ name: 'adapter_config.json', sha256: 'a'.repeat(64), bytes: 1 }] }]);
  expect(lineUp(base, [tuned('ft:a', 'r2')]).revision).toBe('r2');
  expect(lineUp(base, []).revision).toBeUndefined();
});

test.each([
  ['another base', base, [tuned('ft:b', 'r1', 'o/other')], 'ft:b stands on o/other, but o/m on o/m'],
  ['another revision of the base', tuned('ft:a'), [tuned('ft:b', 'r2')], 'revision r2'],
  ['the same model twice', base, [base], 'o/m is named twice'],
])('%s is refused', (_what, judged, compareTo, message) => {
  expect(() => lineUp(judged, compareTo)).toThrow(expect.objectContaining({ code: 'invalid_input', param: 'compare_to', message: expect.stringContaining(message) as unknown }));
});

describe('right answers and labels', () => {
  const request = { metric: { type: 'label_likelihood', labels: ['ham', 'spam'], normalise: 'none' }, limit: 3 } as unknown as EvalRequest;
  const row = (answer: string): DatasetRow => ({ format: 'chat', messages: [{ role: 'user', content: 'q' }, { role: 'assistant', content: answer }] });

  test('an answer among the labels is fine, white space left out', () => {
    expect(labelProblem(request, row(' ham\n'), { line: 1, position: 1 })).toBeNull();
  });

  test('another one is named with its row', () => {
    expect(labelProblem(request, row('Ham'), { line: 4, position: 3 })).toMatchObject({ line: 4, rule: 'reference_not_in_labels', message: 'row 4: the right answer "Ham" is none of the labels ham, spam; add it to the labels, or mend the row' });
  });

  test('rows beyond the limit and other metrics are not looked at', () => {
    expect(labelProblem(request, row('eggs'), { line: 9, position: 4 })).toBeNull();
    expect(labelProblem({ ...request, metric: { type: 'exact_match', max_tokens: 8, ignore_case: false } }, row('eggs'), { line: 1, position: 1 })).toBeNull();
  });
});
