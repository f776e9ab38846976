import type { TunefleetClient } from '@tunefleet/client-sdk';

/** The trained numbers of an adapter by the names of their tensors, all f32. */
export async function adapterValues(client: TunefleetClient, adapterId: string): Promise<ReadonlyMap<string, Float32Array>> {
  const stream = await client.adapters.file(adapterId, 'adapter_model.safetensors');
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const headerBytes = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerBytes))) as Record<string, { readonly dtype: string; readonly data_offsets: readonly [number, number] }>;
  return new Map(
    Object.entries(header)
      .filter(([name]) => name !== '__metadata__')
      .map(([name, { dtype, data_offsets: [begin, end] }]) => {
        if (dtype !== 'F32') throw new Error(`${name} is ${dtype}`);
        return [name, new Float32Array(bytes.slice(8 + headerBytes + begin, 8 + headerBytes + end).buffer)];
      }),
  );
}
