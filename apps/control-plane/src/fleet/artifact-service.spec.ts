import type { ServerReadableStream } from '@grpc/grpc-js';
import type { fleet } from '@tunefleet/contracts';
import type { BlobStore } from '@tunefleet/ports';
import { Readable } from 'node:stream';
import { ArtifactService } from './artifact-service';
import { defaultFleetSettings } from './settings';

const attempt = { jobId: 'ftjob-1', attemptId: 'att-1', epoch: 1 };
type Call = ServerReadableStream<fleet.PutArtifactRequest, fleet.PutArtifactResponse>;

let unpublished: number;
/** Puts that wait to be ended. */
let waiting: (() => void)[];
let service: ArtifactService;

beforeEach(() => {
  unpublished = 0;
  waiting = [];
  const blobs = { put: () => new Promise((resolve) => waiting.push(() => resolve({}))), stat: () => Promise.resolve(null) } as unknown as BlobStore;
  const access = {
    inputsOf: () => Promise.resolve(null),
    isHeldBy: () => Promise.resolve(true),
    noteUpload: () => Promise.resolve(true),
    missingUploads: (_job: string, artifacts: readonly object[]) => Promise.resolve(artifacts as never),
    unpublishedBytes: () => Promise.resolve(unpublished),
  };
  service = new ArtifactService(access, blobs, { ...defaultFleetSettings, maxUnpublishedBytes: 100 });
});

function put(workerId: string, bytes: number): Promise<fleet.PutArtifactResponse> {
  const header = { part: { $case: 'header', value: { attempt, artifact: { name: 'a.bin', sha256: 'a'.repeat(64), bytes } } } };
  return service.put(Readable.from([header]) as unknown as Call, { workerId, signal: new AbortController().signal });
}

async function begun(count: number): Promise<void> {
  while (waiting.length < count) await new Promise((resolve) => setImmediate(resolve));
}

test('what is under way and what was sent in vain counts together, for each worker apart', async () => {
  unpublished = 30;
  const first = put('one', 50);
  await begun(1);
  await expect(put('one', 21)).rejects.toMatchObject({ code: 'invalid_input', reason: 'upload_limit', message: expect.stringContaining('would have 101 bytes under way or in no checkpoint yet; the limit is 100') as string });
  const [second, other] = [put('one', 20), put('two', 70)];
  await begun(3);
  for (const end of waiting) end();
  expect(await Promise.all([first, second, other])).toHaveLength(3);
});

test('an upload that has ended, or was refused, takes no room any more', async () => {
  await expect(put('one', 101)).rejects.toMatchObject({ reason: 'upload_limit' });
  for (let i = 1; i <= 3; i++) {
    const sent = put('one', 100);
    await begun(i);
    waiting[i - 1]?.();
    await sent;
  }
  expect(waiting).toHaveLength(3);
});
