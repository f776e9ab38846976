import type { TunefleetClient } from '@tunefleet/client-sdk';
import type { AdapterView } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';

/** By id, or by the callable name (`ft:…`). */
export async function findAdapter(client: TunefleetClient, name: string): Promise<AdapterView> {
  if (!name.startsWith('ft:')) return client.adapters.get(name);
  const found = (await client.adapters.list()).data.find((adapter) => adapter.name === name);
  if (found === undefined) throw new TunefleetError('not_found', `there is no adapter named ${name}: "tunefleet adapters list" shows them`);
  return found;
}
