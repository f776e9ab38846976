import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import pg from 'pg';
import { isUnreachable } from './database-errors';

/** "You are in", "ask me something". @see https://www.postgresql.org/docs/current/protocol-message-formats.html */
const READY = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0, 0x5a, 0, 0, 0, 5, 0x49]);

test('a query on a client whose connection has broken says that the database does not answer', async () => {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.once('data', () => socket.write(READY));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = new pg.Client({ host: '127.0.0.1', port: (server.address() as AddressInfo).port });
  const errors: unknown[] = [];
  client.on('error', (error) => errors.push(error));
  try {
    await client.connect();
    const ended = new Promise((resolve) => client.once('end', () => resolve(undefined)));
    sockets[0]?.destroy();
    await ended;
    expect(errors.map(isUnreachable)).toEqual([true]);
    // A transaction goes on with the client it was given; pg says so without a code.
    const later = await client.query('select 1').catch((error: unknown) => error);
    expect((later as Error).message).toMatch(/not queryable/);
    expect(isUnreachable(later)).toBe(true);
  } finally {
    server.close();
  }
});

test('other errors are not taken for it', () => {
  expect(isUnreachable(new Error('column "x" does not exist'))).toBe(false);
});
