import { TunefleetError } from '@tunefleet/foundation';

export const ADAPTER_CONFIG = 'adapter_config.json';

export function badAdapter(message: string): TunefleetError {
  return new TunefleetError('incompatible_artifact', message, { reason: 'bad_adapter' });
}
