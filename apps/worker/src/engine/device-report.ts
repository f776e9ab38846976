import { freemem, totalmem } from 'node:os';
import type { Device } from '@tunefleet/ml-tensor';
import type { DeviceReport } from '../engine-protocol';
import { gpuMemory } from './gpu-memory';

/** What the agent tells the control plane about the device. For a CPU its memory is the machine's. */
export function deviceReport({ info }: Device): DeviceReport {
  const memory = (info.gpu ? gpuMemory() : null) ?? { total: totalmem(), free: freemem() };
  return {
    kind: info.gpu ? 'gpu' : 'cpu',
    name: info.deviceName,
    backend: info.backend,
    backendVersion: info.version,
    memoryBytesTotal: memory.total,
    memoryBytesFree: memory.free,
    bf16: info.bf16,
    threads: info.threads,
  };
}
