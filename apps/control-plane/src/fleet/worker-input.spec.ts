import { fleet } from '@tunefleet/contracts';
import { parseArtifactHeader, parseWorkerMessage } from './worker-input';

const attempt = { jobId: 'ftjob-1', attemptId: 'att-1', epoch: 3 };
const sha256 = 'a'.repeat(64);

/** As it comes off the wire: encoded and decoded. */
function wire(message: fleet.WorkerMessage['message']): fleet.WorkerMessage {
  return fleet.WorkerMessage.decode(fleet.WorkerMessage.encode({ message }).finish());
}

function events(payload: fleet.Event['payload']): fleet.WorkerMessage {
  return wire({ $case: 'events', value: { attempt, events: [{ seq: 1, timeMs: 5, payload }] } });
}

test('every kind of event reaches the store in its own form', () => {
  const batch = wire({
    $case: 'events',
    value: {
      attempt,
      events: [
        { seq: 1, timeMs: 5, payload: { $case: 'log', value: { level: 'info', message: 'hi', dataJson: '{"a":1}' } } },
        { seq: 2, timeMs: 5, payload: { $case: 'metrics', value: { step: 1, values: { loss: 0.5 } } } },
        { seq: 3, timeMs: 5, payload: { $case: 'checkpoint', value: { step: 1, artifacts: [{ name: 'a.bin', sha256, bytes: 7 }], metrics: {} } } },
        { seq: 4, timeMs: 5, payload: { $case: 'progress', value: { step: 1, totalSteps: 2, phase: 'training', tokensPerSecond: 10, microBatchSize: 4, etaSeconds: 1 } } },
      ],
    },
  });
  expect(parseWorkerMessage(batch)).toEqual({
    $case: 'events',
    value: {
      key: attempt,
      events: [
        { seq: 1, type: 'log', level: 'info', message: 'hi', data: { a: 1 } },
        { seq: 2, type: 'metrics', step: 1, values: { loss: 0.5 } },
        { seq: 3, type: 'checkpoint', step: 1, artifacts: [{ name: 'a.bin', sha256, bytes: 7 }], metrics: {} },
        { seq: 4, type: 'progress', step: 1, totalSteps: 2, phase: 'training', tokensPerSecond: 10, microBatchSize: 4, etaSeconds: 1 },
      ],
    },
  });
});

test('a failure becomes one of our classes', () => {
  const failed = (failureClass: string) =>
    wire({
      $case: 'finished',
      value: { attempt, lastSeq: 0, outcome: { $case: 'failed', value: { failureClass, code: 'oom', message: 'm', param: '', logTail: ['l'] } } },
    });
  expect(parseWorkerMessage(failed('resource'))).toMatchObject({
    value: { outcome: { value: { class: 'resource', code: 'oom', message: 'm', param: null, logTail: ['l'] } } },
  });
  expect(() => parseWorkerMessage(failed('bad luck'))).toThrow(/failureClass/);
});

test.each<[string, fleet.WorkerMessage, RegExp]>([
  ['nothing at all', fleet.WorkerMessage.decode(new Uint8Array()), /worker message/],
  ['a metric that is not finite', events({ $case: 'metrics', value: { step: 1, values: { loss: Number.NaN } } }), /values\.loss/],
  ['data that is not a JSON object', events({ $case: 'log', value: { level: 'info', message: '', dataJson: '[1]' } }), /not a JSON object/],
  ['an unknown level', events({ $case: 'log', value: { level: 'shout', message: '', dataJson: '' } }), /level/],
  [
    'a path as an artifact name',
    events({ $case: 'checkpoint', value: { step: 1, artifacts: [{ name: '../x', sha256, bytes: 1 }], metrics: {} } }),
    /plain file name/,
  ],
  ['an attempt without epoch', wire({ $case: 'finished', value: { attempt: { ...attempt, epoch: 0 }, lastSeq: 0 } }), /epoch/],
  ['credit for more jobs than any worker has slots', wire({ $case: 'credit', value: { jobs: 65, modelsOnDisk: [], modelInMemory: '' } }), /jobs/],
])('refuses %s', (_what, message, error) => {
  expect(() => parseWorkerMessage(message)).toThrow(error);
});

test('an upload starts with its header', () => {
  expect(() => parseArtifactHeader({ part: { $case: 'data', value: Buffer.from('x') } })).toThrow('must start with its header');
  const header = { attempt, artifact: { name: 'a.bin', sha256, bytes: 1 } };
  expect(parseArtifactHeader({ part: { $case: 'header', value: header } })).toEqual(header);
});
