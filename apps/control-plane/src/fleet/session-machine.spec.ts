import fc from 'fast-check';
import type { AttemptRecord } from '@tunefleet/ports';
import { decideSession, matchRunning, newSessionState, type SessionInput, type SessionState } from './session-machine';
import type { HelloInput, WorkerInput } from './worker-input';

const SILENCE_MS = 15_000;
const key = { jobId: 'ftjob-1', attemptId: 'att-1', epoch: 1 };
const hello: HelloInput = {
  protocolVersion: 1,
  workerId: 'wrk-1',
  bootId: 'boot-1',
  name: 'one',
  version: '0.1.0',
  device: { kind: 'cpu', name: 'cpu', backend: 'fake', backendVersion: '1', memoryBytesTotal: 1, memoryBytesFree: 1, bf16: false, threads: 1 },
  modelsOnDisk: [],
  modelInMemory: null,
  running: [],
  labels: {},
  jobKinds: ['eval'],
  slots: 1,
};

const messages: Record<WorkerInput['$case'], WorkerInput> = {
  hello: { $case: 'hello', value: hello },
  credit: { $case: 'credit', value: { jobs: 1, modelsOnDisk: [], modelInMemory: null } },
  beat: { $case: 'beat', value: { seq: 1, memoryBytesFree: 5, running: [{ attempt: key, step: 3, lastSeq: 9 }] } },
  events: { $case: 'events', value: { key, events: [{ seq: 1, type: 'metrics', step: 1, values: { loss: 2 } }] } },
  finished: { $case: 'finished', value: { attempt: key, lastSeq: 1, outcome: { $case: 'stopped', value: { reason: 'cancelled' } } } },
  assignAck: { $case: 'assignAck', value: { attempt: key, accepted: true, reason: '' } },
};

function say(state: SessionState, name: WorkerInput['$case'], atMs = 1) {
  return decideSession(state, { type: 'message', atMs, message: messages[name] }, SILENCE_MS);
}

const open = say(newSessionState(0), 'hello').state;

test('a hello opens the session, registers the worker and sends what it is owed', () => {
  const { state, commands } = say(newSessionState(0), 'hello');
  expect(state.phase).toBe('open');
  expect(commands).toEqual([{ do: 'register', hello }, { do: 'send_owed' }]);
});

test.each(['credit', 'beat', 'events', 'finished', 'assignAck'] as const)('%s before hello ends the session', (name) => {
  const { state, commands } = say(newSessionState(0), name);
  expect(state.phase).toBe('closed');
  expect(commands).toEqual([{ do: 'abort', code: 'invalid_input', message: `the first message must be hello, not ${name}` }]);
});

test('a second hello ends the session', () => {
  expect(say(open, 'hello').commands).toMatchObject([{ do: 'abort', code: 'invalid_input' }]);
});

test('each message of an open session becomes its command', () => {
  expect(say(open, 'credit').commands).toEqual([{ do: 'credit', jobs: 1, modelsOnDisk: [], modelInMemory: null }]);
  expect(say(open, 'beat').commands).toEqual([{ do: 'renew', keys: [key], memoryBytesFree: 5 }]);
  expect(say(open, 'events').commands).toMatchObject([{ do: 'append', key }]);
  expect(say(open, 'finished').commands).toMatchObject([{ do: 'finish' }]);
  expect(say(open, 'assignAck').commands).toEqual([{ do: 'acknowledge', key }]);
  const refused: WorkerInput = { $case: 'assignAck', value: { attempt: key, accepted: false, reason: 'busy' } };
  expect(decideSession(open, { type: 'message', atMs: 1, message: refused }, SILENCE_MS).commands).toEqual([{ do: 'revoke', key, reason: 'busy' }]);
});

test('ticks beat with rising numbers and look for what is owed', () => {
  const first = decideSession(open, { type: 'tick', atMs: 5_000, busy: false }, SILENCE_MS);
  const second = decideSession(first.state, { type: 'tick', atMs: 10_000, busy: false }, SILENCE_MS);
  expect(first.commands).toEqual([{ do: 'send_beat', seq: 1 }, { do: 'send_owed' }]);
  expect(second.commands[0]).toEqual({ do: 'send_beat', seq: 2 });
});

test('silence closes the session, but not while a message is being worked on', () => {
  const late = { type: 'tick', atMs: 1 + SILENCE_MS + 1 } as const;
  expect(decideSession(open, { ...late, busy: false }, SILENCE_MS).commands).toMatchObject([{ do: 'abort', code: 'unavailable' }]);
  expect(decideSession(open, { ...late, busy: true }, SILENCE_MS).state.phase).toBe('open');
  expect(decideSession(newSessionState(0), { ...late, busy: false }, SILENCE_MS).state.phase).toBe('closed');
});

test('a fenced worker is told not to come back, one of a stopping replica to come back soon', () => {
  expect(decideSession(open, { type: 'fenced' }, SILENCE_MS).commands).toMatchObject([{ do: 'goodbye', reconnectAfterMs: 0 }]);
  expect(decideSession(open, { type: 'shutdown' }, SILENCE_MS).commands).toMatchObject([{ do: 'goodbye', reconnectAfterMs: 500 }]);
});

test('property: a closed session stays closed and does nothing; nothing is done for a worker before its hello', () => {
  const input: fc.Arbitrary<SessionInput> = fc.oneof(
    fc.constantFrom(...Object.values(messages)).map((message) => ({ type: 'message' as const, atMs: 1, message })),
    fc.record({ type: fc.constant('tick' as const), atMs: fc.nat(60_000), busy: fc.boolean() }),
    fc.constantFrom<SessionInput>({ type: 'wake' }, { type: 'fenced' }, { type: 'shutdown' }),
  );
  fc.assert(
    fc.property(fc.array(input, { maxLength: 40 }), (inputs) => {
      let state = newSessionState(0);
      for (const next of inputs) {
        const decision = decideSession(state, next, SILENCE_MS);
        if (state.phase === 'closed') expect(decision).toEqual({ state, commands: [] });
        if (state.phase === 'awaiting_hello') {
          const does = decision.commands.map((command) => command.do);
          expect(['', 'register,send_owed', 'abort', 'goodbye']).toContain(does.join(','));
        }
        state = decision.state;
      }
    }),
  );
});

describe('matching a hello with the record', () => {
  const live: AttemptRecord = {
    id: 'att-1',
    jobId: 'ftjob-1',
    epoch: 1,
    workerId: 'wrk-1',
    workerBootId: 'boot-1',
    slot: 0,
    status: 'running',
    outcome: null,
    leaseExpiresAt: new Date(0),
    resumeCheckpointId: null,
    lastSeq: 0,
    failure: null,
    stopReason: null,
    preemptedForJobId: null,
    step: 0,
    steppedAt: null,
    microBatchSize: null,
    stuckAt: null,
    assignedAt: new Date(0),
    acknowledgedAt: new Date(0),
    finishedAt: null,
  };
  const unacknowledged: AttemptRecord = { ...live, status: 'assigned', acknowledgedAt: null };
  const nothing = { keep: [], acknowledge: [], stop: [], lost: [] };

  test('both know it: it goes on', () => {
    expect(matchRunning('boot-1', [key], [live])).toEqual({ ...nothing, keep: [key] });
  });
  test('its acknowledgement was lost on the way: it counts as acknowledged', () => {
    expect(matchRunning('boot-1', [key], [unacknowledged])).toEqual({ ...nothing, acknowledge: [key] });
  });
  test('its assignment was lost on the way: it is sent again, not given up', () => {
    expect(matchRunning('boot-1', [], [unacknowledged])).toEqual(nothing);
  });
  test('the record does not know it, or in another epoch: it has to stop', () => {
    expect(matchRunning('boot-1', [key], [])).toEqual({ ...nothing, stop: [key] });
    const older = { ...key, epoch: 1 };
    const newer = { ...live, epoch: 2 };
    expect(matchRunning('boot-1', [older], [newer])).toEqual({ ...nothing, stop: [older], lost: [newer] });
  });
  test('an attempt of an earlier boot is lost, acknowledged or not', () => {
    expect(matchRunning('boot-2', [], [live])).toEqual({ ...nothing, lost: [live] });
    expect(matchRunning('boot-2', [], [unacknowledged])).toEqual({ ...nothing, lost: [unacknowledged] });
  });
  test('a boot that speaks for an earlier boot’s attempt is not believed', () => {
    expect(matchRunning('boot-2', [key], [live])).toEqual({ ...nothing, stop: [key], lost: [live] });
  });
});
