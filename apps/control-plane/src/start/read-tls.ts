import { readFile } from 'node:fs/promises';
import { errorMessage, TunefleetError } from '@tunefleet/foundation';
import type { GrpcTlsFiles } from '../config/config';
import type { FleetTls } from '../fleet';

/** @throws invalid_input naming the setting whose file cannot be read */
export async function readTls(files: GrpcTlsFiles | null): Promise<FleetTls | null> {
  if (files === null) return null;
  const cert = await read('TUNEFLEET_GRPC_TLS_CERT', files.cert);
  const key = await read('TUNEFLEET_GRPC_TLS_KEY', files.key);
  return files.clientCa === null ? { cert, key } : { cert, key, clientCa: await read('TUNEFLEET_GRPC_TLS_CLIENT_CA', files.clientCa) };
}

async function read(setting: string, file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (error) {
    throw new TunefleetError('invalid_input', `${setting}: ${errorMessage(error)}`, { cause: error, reason: 'invalid_configuration' });
  }
}
