import { parseArgs } from 'node:util';
import { errorMessage } from '@tunefleet/foundation';
import { probeDevice } from '@tunefleet/ml-tensor';
import { deviceReport } from '../device-report';
import { openEngineDevice } from '../open-engine-device';

/** Prints the device the engine opens on this machine, measured, as one JSON object. `tunefleet doctor` reads it. */
export async function probeCommand(args: string[]): Promise<void> {
  parseArgs({ args, options: { json: { type: 'boolean' } } });
  let fallback: string | null = null;
  const device = await openEngineDevice(process.env, (error) => (fallback = errorMessage(error)));
  const { memoryBytesTotal, memoryBytesFree } = deviceReport(device);
  const { gflopsF32, gflopsBf16, recommended } = probeDevice(device);
  const { version: backendVersion, ...info } = device.info;
  process.stdout.write(`${JSON.stringify({ ...info, backendVersion, memoryBytesTotal, memoryBytesFree, gflopsF32, gflopsBf16, recommended, fallback })}\n`);
}
