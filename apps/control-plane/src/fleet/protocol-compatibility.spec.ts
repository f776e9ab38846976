/**
 * Workers and control planes of different versions side by side. Method: what an older peer leaves out and a newer one adds is written field by
 * field onto the wire, as its generated code would.
 */
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { fleet } from '@tunefleet/contracts';
import { parseWorkerMessage } from './worker-input';

const UNKNOWN_FIELD = 1_000;
const attempt = { jobId: 'ftjob-1', attemptId: 'att-1', epoch: 1 };

/** The message with one more field of each kind that our version has never heard of. */
function fromTheFuture(encoded: Uint8Array): Uint8Array {
  const writer = new BinaryWriter().raw(encoded);
  writer.tag(UNKNOWN_FIELD, WireType.Varint).uint32(7);
  writer.tag(UNKNOWN_FIELD + 1, WireType.LengthDelimited).string('news');
  writer.tag(UNKNOWN_FIELD + 2, WireType.Bit64).double(0.5);
  return writer.finish();
}

/** `bytes` as field `field` of an outer message. */
function wrapped(field: number, bytes: Uint8Array): Uint8Array {
  return new BinaryWriter().tag(field, WireType.LengthDelimited).bytes(bytes).finish();
}

const device: fleet.DeviceInfo = { kind: 'cpu', name: 'test', backend: 'b', backendVersion: '1', memoryBytesTotal: 2, memoryBytesFree: 1, bf16: false, threads: 1 };
const hello: fleet.Hello = {
  ...{ protocolVersion: 1, workerId: 'wrk-1', bootId: 'boot-1', name: 'one', version: '0.1.0', device, modelsOnDisk: [], modelInMemory: '', running: [] },
  labels: { zone: 'a' },
  jobKinds: ['fine-tune'],
  slots: 4,
};

/** What the first release said: no labels, no slots. */
function firstHello(): Uint8Array {
  const writer = new BinaryWriter();
  writer.tag(1, WireType.Varint).uint32(1);
  for (const [field, text] of [[2, 'wrk-1'], [3, 'boot-1'], [4, 'one'], [5, '0.0.9']] as const) writer.tag(field, WireType.LengthDelimited).string(text);
  writer.tag(6, WireType.LengthDelimited).bytes(fleet.DeviceInfo.encode(device).finish());
  writer.tag(11, WireType.LengthDelimited).string('fine-tune');
  return writer.finish();
}

test('the Hello of an older worker is accepted; what it does not say has a neutral value', () => {
  expect(parseWorkerMessage(fleet.WorkerMessage.decode(wrapped(1, firstHello())))).toEqual({
    $case: 'hello',
    value: { ...hello, version: '0.0.9', labels: {}, slots: 1, modelInMemory: null },
  });
});

test('what a newer worker adds to its messages is ignored', () => {
  const newer = fromTheFuture(fleet.Hello.encode({ ...hello, protocolVersion: 2 }).finish());
  expect(parseWorkerMessage(fleet.WorkerMessage.decode(fromTheFuture(wrapped(1, newer))))).toEqual({ $case: 'hello', value: { ...hello, protocolVersion: 2, modelInMemory: null } });
});

test('progress of an older worker says nothing of its passes', () => {
  const progress = { step: 1, totalSteps: 2, phase: 'train', tokensPerSecond: 3, etaSeconds: 4 };
  const batch = fleet.EventBatch.encode({ attempt, events: [{ seq: 1, timeMs: 0, payload: { $case: 'progress', value: { ...progress, microBatchSize: 0 } } }] }).finish();
  expect(parseWorkerMessage(fleet.WorkerMessage.decode(wrapped(4, batch)))).toEqual({ $case: 'events', value: { key: attempt, events: [{ seq: 1, type: 'progress', ...progress }] } });
});

test('an event of a kind that only newer workers have leaves no gap', () => {
  const known = fleet.Event.encode({ seq: 1, timeMs: 0, payload: { $case: 'metrics', value: { step: 1, values: { loss: 2 } } } }).finish();
  const unknown = new BinaryWriter().raw(fleet.Event.encode({ seq: 2, timeMs: 0, payload: undefined }).finish()).tag(UNKNOWN_FIELD, WireType.LengthDelimited).bytes(new Uint8Array([8, 1])).finish();
  const writer = new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(fleet.AttemptRef.encode(attempt).finish());
  for (const event of [known, unknown]) writer.tag(2, WireType.LengthDelimited).bytes(event);
  expect(parseWorkerMessage(fleet.WorkerMessage.decode(wrapped(4, writer.finish())))).toMatchObject({
    value: { events: [{ seq: 1, type: 'metrics' }, { seq: 2, type: 'log', message: expect.stringContaining('too old') }] },
  });
});

test('a message of a kind that only newer peers have is one without content', () => {
  const news = wrapped(UNKNOWN_FIELD, new Uint8Array([8, 1]));
  expect([fleet.WorkerMessage.decode(news).message, fleet.ServerMessage.decode(news).message]).toEqual([undefined, undefined]);
});

test('what a newer control plane adds to an assignment is ignored by the worker', () => {
  const assign: fleet.Assign = { attempt, kind: 'eval', schemaVersion: 1, specJson: '{}', inputs: [], resume: undefined, leaseMs: 5 };
  expect(fleet.ServerMessage.decode(wrapped(2, fromTheFuture(fleet.Assign.encode(assign).finish()))).message).toEqual({ $case: 'assign', value: assign });
});
