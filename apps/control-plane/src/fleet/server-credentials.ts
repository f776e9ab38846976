import { isIP } from 'node:net';
import { createSecureContext } from 'node:tls';
import { ServerCredentials } from '@grpc/grpc-js';
import { errorMessage, TunefleetError } from '@tunefleet/foundation';

/** PEM. */
export interface FleetTls {
  readonly key: Buffer;
  readonly cert: Buffer;
  /** Workers must show a certificate that one of these has signed. */
  readonly clientCa?: Buffer;
}

export interface FleetListen {
  readonly host: string;
  readonly tls?: FleetTls;
  /** Plain text is meant also where others can listen. */
  readonly plaintextAllowed?: boolean;
}

/** @throws invalid_input for plain text that others could read, and for keys and certificates that do not work */
export function serverCredentials({ host, tls, plaintextAllowed }: FleetListen): ServerCredentials {
  if (tls === undefined) {
    if (plaintextAllowed !== true && !isLoopback(host)) throw plaintextRefused(host);
    return ServerCredentials.createInsecure();
  }
  try {
    // Says already here that key and certificate do not belong together; otherwise every handshake would fail.
    createSecureContext({ key: tls.key, cert: tls.cert, ...(tls.clientCa === undefined ? {} : { ca: tls.clientCa }) });
    return ServerCredentials.createSsl(tls.clientCa ?? null, [{ private_key: tls.key, cert_chain: tls.cert }], tls.clientCa !== undefined);
  } catch (error) {
    throw new TunefleetError('invalid_input', `the certificate or key of the worker endpoint cannot be used: ${errorMessage(error)}. See TUNEFLEET_GRPC_TLS_CERT and TUNEFLEET_GRPC_TLS_KEY`, { cause: error });
  }
}

export function isLoopback(host: string): boolean {
  if (host === 'localhost' || host === '::1') return true;
  return isIP(host) === 4 && host.startsWith('127.');
}

function plaintextRefused(host: string): TunefleetError {
  return new TunefleetError(
    'invalid_input',
    `the worker endpoint would listen on ${host} in plain text, where tokens and data can be read on the way: set TUNEFLEET_GRPC_TLS_CERT and TUNEFLEET_GRPC_TLS_KEY, ` +
      'or TUNEFLEET_GRPC_HOST=127.0.0.1 behind a TLS proxy, or TUNEFLEET_GRPC_PLAINTEXT=on if the network is private',
    { reason: 'plaintext_refused' },
  );
}
