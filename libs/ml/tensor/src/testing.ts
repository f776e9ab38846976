import { openDevice } from './open-device';
import type { Device } from './device';

/** Both backends, for suites that every backend must pass. */
export const TEST_BACKENDS = ['tensorflow', 'wasm'] as const;

const devices = new Map<string, Promise<Device>>();

/** One device per backend and test file. */
export function testDevice(backend: (typeof TEST_BACKENDS)[number]): Promise<Device> {
  const open = devices.get(backend) ?? openDevice({ backend });
  devices.set(backend, open);
  return open;
}
