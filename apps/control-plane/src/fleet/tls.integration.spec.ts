/**
 * The worker endpoint with TLS, by real worker processes through a proxy that sees only what others on the way would see. Certificates are
 * made for the test with openssl.
 */
import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { EmbeddedPostgres } from '@tunefleet/postgres-embedded';
import { serverCredentials } from './server-credentials';
import { bundleWorker, FleetHarness, removeBundles, until } from './testing/fleet-harness';
import { RawWorker } from './testing/raw-worker';
import { TestAuthority, type TestCertificate } from './testing/test-certificates';
import { firstFit, startTestPostgres } from './testing/test-record';

const TEST_MS = 60_000;
const hasOpenssl = isThere('openssl', ['version']);
const describeTls = hasOpenssl ? describe : describe.skip;

describeTls(`TLS${hasOpenssl ? '' : ' (skipped: no openssl in PATH; on Debian: apt-get install openssl)'}`, () => {
  let dir: string;
  let postgres: EmbeddedPostgres;
  let ours: TestAuthority;
  let strangers: TestAuthority;
  let server: TestCertificate;
  let member: TestCertificate;
  let stranger: TestCertificate;
  let fleet: FleetHarness | null = null;

  beforeAll(async () => {
    await bundleWorker();
    dir = await mkdtemp(join(tmpdir(), 'fleet-tls-'));
    ours = await TestAuthority.create(dir, 'ours');
    strangers = await TestAuthority.create(dir, 'strangers');
    server = await ours.issue('server', 'IP:127.0.0.1,DNS:control.example');
    member = await ours.issue('member', 'DNS:worker');
    stranger = await strangers.issue('stranger', 'DNS:worker');
    postgres = await startTestPostgres(join(dir, 'postgres'));
  }, 120_000);
  afterAll(async () => {
    await postgres.stop();
    await rm(dir, { recursive: true, force: true });
    await removeBundles();
  }, 60_000);
  afterEach(async () => {
    await fleet?.close();
    fleet = null;
  }, 60_000);

  async function open(withClients: boolean, certificate = server): Promise<FleetHarness> {
    const [cert, key] = [await readFile(certificate.cert), await readFile(certificate.key)];
    fleet = await FleetHarness.open(postgres.url, firstFit, { server: { tls: { cert, key, ...(withClients ? { clientCa: await readFile(ours.ca.cert) } : {}) } } });
    return fleet;
  }

  const dial = (harness: FleetHarness, env: Readonly<Record<string, string>>) => ({ TUNEFLEET_CONTROL_PLANE: `grpcs://${harness.address}`, ...env });

  async function runsAJob(harness: FleetHarness, name: string, env: Readonly<Record<string, string>>): Promise<void> {
    harness.startWorker(name, { env: dial(harness, env) });
    const job = await harness.submit({ steps: 3, checkpointEvery: 2, resultBytes: 100_000 });
    await harness.untilStatus(job, 'succeeded');
  }

  /** Does not get in, and says why in its log, as long as it is left to try. */
  async function keepsOut(harness: FleetHarness, name: string, env: Readonly<Record<string, string>>): Promise<void> {
    const logFile = join(harness.dir, `${name}.log`);
    harness.startWorker(name, { env: { ...dial(harness, env), TUNEFLEET_LOG_LEVEL: 'warn' }, logFile });
    await until(`${name} to have been kept out`, async () => ((await readFile(logFile, 'utf8').catch(() => '')).match(/no contact with the control plane/g) ?? []).length >= 3);
    expect((await harness.record.records.listWorkers()).map((worker) => worker.name)).not.toContain(name);
  }

  test(
    'a worker that trusts the authority works, transfers included; plain text and other authorities do not get through',
    async () => {
      const harness = await open(false);
      await runsAJob(harness, 'trusting', { TUNEFLEET_TLS_CA: ours.ca.cert });
      await keepsOut(harness, 'elsewhere', { TUNEFLEET_TLS_CA: strangers.ca.cert });
      const plain = new RawWorker(harness.address);
      expect((await plain.join('any-token')).status).toBe('UNAVAILABLE');
      plain.close();
    },
    TEST_MS,
  );

  test(
    'the name in the certificate counts; another one can be asked for',
    async () => {
      const named = await ours.issue('named', 'DNS:control.example');
      const harness = await open(false, named);
      await keepsOut(harness, 'by-address', { TUNEFLEET_TLS_CA: ours.ca.cert });
      await runsAJob(harness, 'by-name', { TUNEFLEET_TLS_CA: ours.ca.cert, TUNEFLEET_TLS_SERVER_NAME: 'control.example' });
    },
    TEST_MS,
  );

  test(
    'with an authority for workers, only those with a certificate of it are let in, whatever their token',
    async () => {
      const harness = await open(true);
      await runsAJob(harness, 'member', { TUNEFLEET_TLS_CA: ours.ca.cert, TUNEFLEET_TLS_CERT: member.cert, TUNEFLEET_TLS_KEY: member.key });
      await keepsOut(harness, 'without', { TUNEFLEET_TLS_CA: ours.ca.cert });
      await keepsOut(harness, 'stranger', { TUNEFLEET_TLS_CA: ours.ca.cert, TUNEFLEET_TLS_CERT: stranger.cert, TUNEFLEET_TLS_KEY: stranger.key });
    },
    TEST_MS,
  );

  test('a key that does not belong to the certificate stops the start and names the settings', async () => {
    const tls = { cert: await readFile(server.cert), key: await readFile(member.key) };
    expect(() => serverCredentials({ host: '127.0.0.1', tls })).toThrow(/TUNEFLEET_GRPC_TLS_CERT and TUNEFLEET_GRPC_TLS_KEY/);
    expect(() => serverCredentials({ host: '127.0.0.1', tls: { ...tls, key: Buffer.from('no key') } })).toThrow(/cannot be used/);
  });
});

function isThere(program: string, args: readonly string[]): boolean {
  try {
    execFileSync(program, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
