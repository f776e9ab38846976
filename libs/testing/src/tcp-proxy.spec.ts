import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { TcpProxy } from './tcp-proxy';

/** Says its name to whoever connects, then everything back. */
async function echo(name: string): Promise<{ url: string; server: Server }> {
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.write(`${name}:`);
    socket.pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

const open: { close(): unknown }[] = [];
afterEach(async () => {
  for (const each of open.splice(0)) await each.close();
});

async function client(proxy: TcpProxy): Promise<{ socket: Socket; heard(text: string): Promise<void>; text: () => string }> {
  const socket = connect(Number(new URL(proxy.url).port), '127.0.0.1');
  let text = '';
  socket.setEncoding('utf8').on('data', (data: string) => (text += data));
  socket.on('error', () => undefined);
  open.push({ close: () => socket.destroy() });
  const heard = async (wanted: string): Promise<void> => {
    while (text !== wanted) await once(socket, 'data');
  };
  return { socket, heard, text: () => text };
}

test('connections go to the first target that takes them; aiming moves the next ones', async () => {
  const [one, two] = [await echo('one'), await echo('two')];
  const proxy = await TcpProxy.start(one.url, two.url);
  open.push({ close: () => proxy.vanish() }, one.server, two.server);
  await (await client(proxy)).heard('one:');
  proxy.aim(two.url, one.url);
  await (await client(proxy)).heard('two:');
  const gone = new Promise((resolve) => two.server.close(resolve));
  proxy.cut();
  await gone;
  await (await client(proxy)).heard('one:');
});

test('a stalled line keeps what was said and delivers it, in order, once it is resumed; a cut one ends', async () => {
  const { url, server } = await echo('echo');
  const proxy = await TcpProxy.start(url);
  open.push({ close: () => proxy.vanish() }, server);
  const { socket, heard, text } = await client(proxy);
  await heard('echo:');
  proxy.stall();
  socket.write('a');
  socket.write('b');
  const witness = connect(Number(new URL(url).port), '127.0.0.1');
  open.push({ close: () => witness.destroy() });
  await once(witness, 'data');
  expect(text()).toBe('echo:');
  proxy.delay(5);
  proxy.resume();
  await heard('echo:ab');
  const closed = once(socket, 'close');
  proxy.cut();
  await closed;
});
