import { fileURLToPath } from 'node:url';
import { engineResourcesOptions, EngineResources, jobRegistry } from '@tunefleet/ml-jobs';
import type { FromEngine } from '../engine-protocol';
import { deviceReport } from './device-report';
import { openEngineDevice } from './open-engine-device';
import { EngineSession } from './session';

/**
 * Runs this process as the engine of the agent that forked it. It lives as long as the channel: no signal of the terminal ends it, because the agent
 * decides when a job is checkpointed, and no agent's death leaves it behind.
 */
export async function serveAgent(): Promise<void> {
  process.on('disconnect', () => process.exit(0));
  process.on('SIGINT', () => undefined);
  process.on('SIGTERM', () => undefined);
  const device = await openEngineDevice();
  const tokeniserThread = fileURLToPath(new URL('./tokenise-thread.mjs', import.meta.url));
  const engine = new EngineResources({ ...engineResourcesOptions(device), tokeniserThread });
  const session = new EngineSession(engine, send, () => process.exit(0));
  const crash = (error: unknown): void => {
    process.stderr.write(`engine: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    session.crash(error);
    void lastSent.then(() => process.exit(1));
  };
  process.on('uncaughtException', crash);
  process.on('unhandledRejection', crash);
  process.on('message', (raw) => session.receive(raw));
  send({ type: 'ready', device: deviceReport(device), jobKinds: Object.keys(jobRegistry) });
}

/** Resolves when everything sent so far has left, or could not: then the channel is closing and `disconnect` ends the process. */
let lastSent: Promise<void> = Promise.resolve();

function send(message: FromEngine): void {
  if (!process.connected) return;
  lastSent = new Promise((resolve) => process.send?.(message, undefined, undefined, () => resolve()));
}
