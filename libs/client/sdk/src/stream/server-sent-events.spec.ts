import fc from 'fast-check';
import { serverSentEvents, type ServerSentEvent } from './server-sent-events';

async function eventsOf(chunks: readonly Uint8Array[]): Promise<ServerSentEvent[]> {
  const events: ServerSentEvent[] = [];
  const source = async function* () {
    for (const chunk of chunks) yield await Promise.resolve(chunk);
  };
  for await (const event of serverSentEvents(source())) events.push(event);
  return events;
}

const bytes = (text: string) => new TextEncoder().encode(text);

test('fields as the standard reads them', async () => {
  expect(await eventsOf([bytes(':c\nid: 1\nevent: x\ndata: a\ndata:  b\n\ndata\n\ndata: cut off')])).toEqual([
    { event: 'x', data: 'a\n b', id: '1' },
    { event: 'message', data: '', id: '1' },
  ]);
});

test('property: any cut of the bytes and any line ends give the same events', async () => {
  await fc.assert(
    fc.asyncProperty(fc.constantFrom('\n', '\r\n', '\r'), fc.array(fc.nat(60), { maxLength: 6 }), async (lineEnd, cuts) => {
      const whole = bytes(['event: a', 'data: é🦙', 'data: 2', '', 'id: 7', 'data: x', '', ':end', ''].join(lineEnd));
      const edges = [0, ...cuts.filter((cut) => cut < whole.length).sort((a, b) => a - b), whole.length];
      const chunks = edges.slice(1).map((edge, index) => whole.subarray(edges[index], edge));
      expect(await eventsOf(chunks)).toEqual([
        { event: 'a', data: 'é🦙\n2', id: '' },
        { event: 'message', data: 'x', id: '7' },
      ]);
    }),
  );
});

test('a line without end is refused', async () => {
  await expect(eventsOf([bytes(`data: ${'x'.repeat(2 * 1024 * 1024)}`)])).rejects.toMatchObject({ code: 'unavailable' });
});
