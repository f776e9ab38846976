import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { silentLogger } from '@tunefleet/foundation';
import { Database } from './database';

/** "You are in", "ask me something", and in the same packet "I am going down" (57P01), as a server that shuts down may say. */
const fatal = Buffer.from('SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0');
const length = Buffer.alloc(4);
length.writeInt32BE(fatal.length + 4);
const WELCOME_AND_FAREWELL = Buffer.concat([Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0, 0x5a, 0, 0, 0, 5, 0x49, 0x45]), length, fatal]);

test('a server that goes down as it hands out a connection is an error of whoever asked, not the end of the process', async () => {
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.once('data', () => socket.end(WELCOME_AND_FAREWELL));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const database = new Database(`postgresql://someone@127.0.0.1:${(server.address() as AddressInfo).port}/x`, silentLogger, 1);
  try {
    // Without a listener at every moment the error event of the connection would fail this test as an uncaught exception.
    await expect(database.transaction((tx) => tx.$queryRaw`select 1`)).rejects.toMatchObject({ code: 'unavailable' });
  } finally {
    await database.close();
    server.close();
  }
});
