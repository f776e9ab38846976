/** This version's worker in front of control planes of other versions: real gRPC. */
import { credentials, Server, ServerCredentials, status, type ServerDuplexStream, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { fleet } from '@tunefleet/contracts';
import { silentLogger, systemClock } from '@tunefleet/foundation';
import { Membership } from './membership';
import { ServerLink } from './server-link';
import { defaultAgentSettings } from './settings';

const TOKEN = 'token-of-the-whole-fleet';
const SECRET = 'a'.repeat(43);

type Call = ServerDuplexStream<fleet.WorkerMessage, fleet.ServerMessage>;

let server: Server;
let client: fleet.FleetClient;
let link: ServerLink;
afterEach(async () => {
  await link.close();
  client.close();
  server.forceShutdown();
});

async function listen(service: Parameters<Server['addService']>[0], handlers: UntypedServiceImplementation): Promise<void> {
  server = new Server();
  server.addService(service, handlers);
  const port = await new Promise<number>((resolve, reject) => server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => (error === null ? resolve(bound) : reject(error))));
  client = new fleet.FleetClient(`127.0.0.1:${port}`, credentials.createInsecure());
}

/** @returns what the worker ends up with: a welcome, or why it will not try again */
async function connect({ isNew }: { readonly isNew: boolean }): Promise<{ readonly welcome: fleet.Welcome } | { readonly refused: string }> {
  const membership = new Membership({ client, joinToken: TOKEN, workerDir: '', name: 'one', labels: {}, logger: silentLogger, load: async () => ({ secret: SECRET, isNew }) });
  await membership.open({ workerId: 'wrk-1', bootId: 'boot-1' });
  return new Promise((resolve) => {
    link = new ServerLink({
      ...{ client, membership, clock: systemClock, logger: silentLogger, isUrgent: () => false, onMessage: () => undefined },
      settings: { ...defaultAgentSettings, reconnect: { firstMs: 5, factor: 1, maxMs: 5 } },
      hello: () => fleet.Hello.fromPartial({ protocolVersion: 1, workerId: 'wrk-1', bootId: 'boot-1' }),
      beat: (seq) => ({ seq, memoryBytesFree: 0, running: [] }),
      onWelcome: (welcome) => resolve({ welcome }),
      onRefused: (refused) => resolve({ refused }),
    });
    link.start();
  });
}

/** The control plane of before credentials: it has no Join, and a session shows the token of the fleet. */
async function listenAsBeforeCredentials(): Promise<void> {
  const { join: _join, ...service } = fleet.FleetService;
  await listen(service, {
    session: (call: Call) => call.emit('error', { code: status.UNAUTHENTICATED, details: 'the worker token is missing or wrong' }),
    putArtifact: () => undefined,
    getArtifact: () => undefined,
  });
}

test.each([
  ['that never joined', true],
  ['that had joined a newer one, which was taken back,', false],
])('before an older control plane a worker %s says which of them to update', async (_what, isNew) => {
  await listenAsBeforeCredentials();
  expect(await connect({ isNew })).toEqual({ refused: 'the control plane is older than this worker: update it first' });
});

test('a newer control plane that still speaks the version serves the worker; what it says beyond is ignored', async () => {
  let hello: fleet.Hello | undefined;
  const welcome: fleet.Welcome = { protocolVersion: 2, sessionId: 's', beatIntervalMs: 5_000, leaseMs: 30_000, artifactChunkBytes: 1_000 };
  await listen(fleet.FleetService, {
    join: (_call: unknown, callback: (error: null, answer: fleet.JoinResponse) => void) => callback(null, {}),
    session: (call: Call) =>
      call.on('data', ({ message }: fleet.WorkerMessage) => {
        if (message?.$case !== 'hello') return;
        hello = message.value;
        call.write({ message: undefined });
        call.write({ message: { $case: 'welcome', value: welcome } });
      }),
    putArtifact: () => undefined,
    getArtifact: () => undefined,
  });
  expect(await connect({ isNew: true })).toEqual({ welcome });
  expect(hello).toMatchObject({ protocolVersion: 1, workerId: 'wrk-1' });
});

test('a control plane that needs a newer version refuses in words that reach the log, and the worker tries on', async () => {
  let tries = 0;
  const details = 'the worker speaks protocol 1, this control plane needs 2: update the worker';
  await listen(fleet.FleetService, {
    join: (_call: unknown, callback: (error: null, answer: fleet.JoinResponse) => void) => callback(null, {}),
    session: (call: Call) =>
      call.on('data', () => {
        // The third replica it comes to is not upgraded yet.
        if (++tries < 3) return call.emit('error', { code: status.INVALID_ARGUMENT, details });
        return call.write({ message: { $case: 'welcome', value: fleet.Welcome.fromPartial({ protocolVersion: 1, sessionId: 's', leaseMs: 30_000, beatIntervalMs: 5_000 }) } });
      }),
    putArtifact: () => undefined,
    getArtifact: () => undefined,
  });
  expect(await connect({ isNew: false })).toMatchObject({ welcome: { protocolVersion: 1 } });
  expect(tries).toBe(3);
});
