/** Times and bounds of the fleet protocol. Operators set the lease, from which `leaseTimes` has the others; tests set them apart. */
export interface FleetSettings {
  /** Both sides send a beat this often. */
  readonly beatIntervalMs: number;
  /** Nothing heard for so long: the session is closed. */
  readonly silenceMs: number;
  /** How long a worker may go on without contact. */
  readonly leaseMs: number;
  readonly artifactChunkBytes: number;
  /** Largest message either way; an event batch is far below it. */
  readonly maxMessageBytes: number;
  readonly maxArtifactBytes: number;
  /** Of a worker, under way and sent, as long as no checkpoint or result names them. */
  readonly maxUnpublishedBytes: number;
  /** Messages waiting to be written to one worker; a worker that reads slower than this is cut off. */
  readonly maxUnsentMessages: number;
  /** Artifact calls of one worker at a time; it makes one after the other, and two when a cut one is not noticed yet. */
  readonly maxArtifactCalls: number;
  /** Calls on one connection at a time. */
  readonly maxConcurrentStreams: number;
  /** A connection without calls is closed after this. */
  readonly connectionIdleMs: number;
}

export const defaultFleetSettings: FleetSettings = {
  beatIntervalMs: 5_000,
  silenceMs: 15_000,
  leaseMs: 30_000,
  artifactChunkBytes: 256 * 1024,
  maxMessageBytes: 4 * 1024 * 1024,
  maxArtifactBytes: 64 * 1024 ** 3,
  maxUnpublishedBytes: 128 * 1024 ** 3,
  maxUnsentMessages: 1_000,
  maxArtifactCalls: 16,
  maxConcurrentStreams: 100,
  connectionIdleMs: 300_000,
};

/** The times that go with a lease: five beats may be lost before it ends, and silence is noticed while there is half of it left to come back. */
export function leaseTimes(leaseMs: number): Pick<FleetSettings, 'beatIntervalMs' | 'silenceMs' | 'leaseMs'> {
  return { beatIntervalMs: Math.round(leaseMs / 6), silenceMs: Math.round(leaseMs / 2), leaseMs };
}

/** Version of the protocol in `proto/tunefleet/fleet/v1`. From 2 on a worker may have more than one slot, and credit for more than one job. */
export const PROTOCOL_VERSION = 2;
/** The lowest that workers may speak: raise it only when serving older ones is given up. */
export const OLDEST_PROTOCOL_VERSION = 1;
