import { silentLogger } from '@tunefleet/foundation';
import { Shutdown } from './shutdown';

test('stops the last opened first, once, past failures and hangs', async () => {
  const stopped: string[] = [];
  const shutdown = new Shutdown(silentLogger);
  shutdown.add('first', 1_000, () => Promise.resolve(void stopped.push('first')));
  shutdown.add('failing', 1_000, () => Promise.reject(new Error('no')));
  shutdown.add('hanging', 5, () => new Promise(() => undefined));
  shutdown.add('last', 1_000, () => Promise.resolve(void stopped.push('last')));
  expect(shutdown.isRunning).toBe(false);
  const runs = [shutdown.run(), shutdown.run()];
  expect(shutdown.isRunning).toBe(true);
  await Promise.all(runs);
  expect(stopped).toEqual(['last', 'first']);
});
