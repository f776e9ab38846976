import { statfs } from 'node:fs/promises';
import type { Device } from '@tunefleet/ml-tensor';

/** Left to the system and to what an estimate misses. */
const USABLE_SHARE = 0.9;

/**
 * Bytes that tensors may still take. On a processor: what the system can give without swapping, within this process's limits.
 * On a GPU nobody tells before it is asked: an allocation that fails says so.
 */
export function availableDeviceBytes({ info }: Device): number {
  return info.gpu ? Number.POSITIVE_INFINITY : USABLE_SHARE * process.availableMemory();
}

/** Of the host's memory that nothing else needs, what kept hidden states may take. */
const STEMS_SHARE = 0.5;

/** Host bytes for hidden states that are kept across epochs. @param stepBytes what a step takes, of the same memory on a processor */
export function stemBudgetBytes({ info }: Device, stepBytes: number): number {
  return STEMS_SHARE * Math.max(0, process.availableMemory() - (info.gpu ? 0 : stepBytes));
}

/** Of what is free on disk, what kept hidden states may take. */
const STEMS_DISK_SHARE = 0.25;

/** Bytes on disk for hidden states that the host has no memory for. @param directory where the job writes */
export async function stemDiskBytes(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return STEMS_DISK_SHARE * bavail * bsize;
}

/** Tokens in one pass through a model from which on the device is busy: measured on 2 processor cores (ml/training/README.md), a guess for GPUs. */
export function tokensPerPass({ info }: Device): number {
  return info.gpu ? 16_384 : 1024;
}
