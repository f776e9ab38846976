import { readFile } from 'node:fs/promises';
import { credentials, type ChannelCredentials, type ClientOptions } from '@grpc/grpc-js';
import { errorMessage, TunefleetError } from '@tunefleet/foundation';

/** Paths of PEM files. */
export interface ClientTls {
  /** Whom to trust; null: the authorities that Node trusts. */
  readonly ca: string | null;
  /** The worker's own certificate, for control planes that ask for one. */
  readonly own: { readonly cert: string; readonly key: string } | null;
  /** The name the control plane's certificate must have; null: that of its address. */
  readonly serverName: string | null;
}

/** @throws invalid_input naming the setting whose file cannot be used */
export async function channelCredentials(tls: ClientTls | null): Promise<ChannelCredentials> {
  if (tls === null) return credentials.createInsecure();
  const ca = tls.ca === null ? null : await read('TUNEFLEET_TLS_CA', tls.ca);
  const key = tls.own === null ? null : await read('TUNEFLEET_TLS_KEY', tls.own.key);
  const cert = tls.own === null ? null : await read('TUNEFLEET_TLS_CERT', tls.own.cert);
  try {
    return credentials.createSsl(ca, key, cert);
  } catch (error) {
    throw new TunefleetError('invalid_input', `TUNEFLEET_TLS_CA, TUNEFLEET_TLS_CERT or TUNEFLEET_TLS_KEY cannot be used: ${errorMessage(error)}`, { cause: error });
  }
}

export function channelOptions(tls: ClientTls | null): ClientOptions {
  return {
    // The link decides when to try again; the channel underneath must not wait longer on its own.
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.min_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 1_000,
    ...(tls === null || tls.serverName === null ? {} : { 'grpc.ssl_target_name_override': tls.serverName, 'grpc.default_authority': tls.serverName }),
  };
}

async function read(setting: string, file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (error) {
    throw new TunefleetError('invalid_input', `${setting}: ${errorMessage(error)}`, { cause: error, reason: 'invalid_configuration' });
  }
}
