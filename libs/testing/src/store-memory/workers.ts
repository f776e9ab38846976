import { TunefleetError } from '@tunefleet/foundation';
import type { FleetStore } from '@tunefleet/ports';
import type { Tables } from './tables';

type WorkerMethods = Pick<FleetStore, 'helloWorker' | 'touchWorker' | 'setCredit' | 'disconnectWorker' | 'markSilentWorkers'>;

export function workerMethods(tables: Tables): WorkerMethods {
  const ofSession = (workerId: string, sessionId: string) => {
    const worker = tables.workers.get(workerId);
    return worker?.sessionId === sessionId ? worker : undefined;
  };
  return {
    helloWorker: async (hello) => {
      if ((tables.credentials.get(hello.id)?.revokedAt ?? null) !== null) throw new TunefleetError('permission_denied', `worker ${hello.id} was revoked`, { reason: 'worker_revoked' });
      const known = tables.workers.get(hello.id);
      tables.putWorker({
        cordoned: false,
        cordonReason: null,
        uncordonedAt: null,
        drain: null,
        drainDeadline: null,
        ...known,
        ...hello,
        status: 'online',
        credit: 0,
        lastSeenAt: tables.now(),
      });
      tables.announce(`worker:${hello.id}`);
      return tables.workers.get(hello.id) as NonNullable<typeof known>;
    },
    touchWorker: async (workerId, sessionId, { memoryBytesFree }) => {
      const worker = ofSession(workerId, sessionId);
      if (worker === undefined) return false;
      const device = memoryBytesFree === undefined ? worker.device : { ...worker.device, memoryBytesFree: Math.max(0, Math.round(memoryBytesFree)) };
      tables.changeWorker(workerId, { lastSeenAt: tables.now(), status: 'online', device });
      if (worker.status !== 'online') tables.announce('schedule');
      return true;
    },
    setCredit: async (workerId, sessionId, { jobs, modelsOnDisk, modelInMemory }) => {
      if (ofSession(workerId, sessionId) === undefined) return false;
      tables.changeWorker(workerId, { credit: Math.max(0, Math.trunc(jobs)), modelsOnDisk, modelInMemory, lastSeenAt: tables.now(), status: 'online' });
      if (jobs > 0) tables.announce('schedule');
      return true;
    },
    disconnectWorker: async (workerId, sessionId) => {
      if (ofSession(workerId, sessionId) !== undefined) tables.changeWorker(workerId, { sessionId: null, replicaId: null, credit: 0, status: 'suspect' });
    },
    markSilentWorkers: async (suspectMs, offlineMs) => {
      const nowMs = tables.nowMs();
      const changed: string[] = [];
      for (const worker of tables.workers.values()) {
        const silentMs = nowMs - worker.lastSeenAt.getTime();
        if (worker.status !== 'offline' && silentMs > offlineMs) {
          tables.changeWorker(worker.id, { status: 'offline', credit: 0, sessionId: null, replicaId: null });
          changed.push(worker.id);
        } else if (worker.status === 'online' && silentMs > suspectMs) {
          tables.changeWorker(worker.id, { status: 'suspect' });
          changed.push(worker.id);
        }
      }
      return changed;
    },
  };
}
