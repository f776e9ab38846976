import { decayedUsage, startOfMonth } from '@tunefleet/domain-scheduling';
import { TunefleetError } from '@tunefleet/foundation';
import type { RecordStore, TeamAccountRecord, TeamRecord, WorkerRecord } from '@tunefleet/ports';
import { chargedSeconds, companyOf } from './company';
import { insertEvents } from './events';
import { newestFirst, pageOrThrow, unknownAfter } from './jobs';
import { stopDrained } from './stops';
import { plainText, storable } from './storable';
import type { Tables } from './tables';
import { usageByDay } from './usage';

type Rest = Omit<
  RecordStore,
  'createJob' | 'getJob' | 'listJobs' | 'admitJob' | 'refuseJob' | 'listUnvalidatedJobs' | 'getJobForIntake' | 'countJobs' | 'cancelJob' | 'pauseJob' | 'resumeJob' | 'setJobPriority'
>;

/** What of the record is not jobs. */
export function recordMethods(tables: Tables): Rest {
  return { ...teamMethods(tables), ...fileMethods(tables), ...progressMethods(tables), ...adapterMethods(tables), ...workerControlMethods(tables) };
}

function teamMethods(tables: Tables): Pick<RecordStore, 'ensureTeam' | 'listTeams' | 'getTeam' | 'setTeamQuota' | 'sharesWorkers' | 'usageByDay' | 'ping' | 'memoryCorrection'> {
  const byName = (name: string): TeamRecord | undefined => [...tables.teams.values()].find((team) => team.name === name);
  return {
    ensureTeam: async (name) => {
      const team = byName(name) ?? { id: tables.newId('team'), name };
      tables.teams.set(team.id, team);
      return team;
    },
    listTeams: async () => [...tables.teams.values()].sort((a, b) => (a.name < b.name ? -1 : 1)).map((team) => account(tables, team)),
    getTeam: async (name) => {
      const team = byName(name);
      return team === undefined ? null : account(tables, team);
    },
    setTeamQuota: async (name, changes) => {
      const team = byName(name);
      if (team === undefined) return null;
      tables.quotas.set(team.id, { ...tables.quotaOf(team.id), ...changes });
      tables.announce('schedule');
      return account(tables, team);
    },
    sharesWorkers: async (teamId) => tables.quotaOf(teamId).sharesWorkers,
    usageByDay: async (request) => usageByDay(tables, request),
    memoryCorrection: async (shape) => tables.measurements.get(shape)?.memoryRatio ?? 1,
    ping: async () => undefined,
  };
}

function account(tables: Tables, { id, name }: TeamRecord): TeamAccountRecord {
  const nowMs = tables.nowMs();
  const monthMs = startOfMonth(nowMs);
  const jobs = [...tables.jobs.values()].filter(({ teamId }) => teamId === id);
  const usage = tables.usage.get(id);
  const live = tables.liveAttempts().filter(({ jobId }) => tables.jobs.get(jobId)?.teamId === id);
  const liveSeconds = live.reduce((sum, attempt) => sum + chargedSeconds(tables, attempt, Math.max(attempt.assignedAt.getTime(), monthMs), nowMs), 0);
  return {
    id,
    name,
    quota: tables.quotaOf(id),
    runningJobs: jobs.filter(({ status }) => status === 'running').length,
    queuedJobs: jobs.filter(({ status }) => status === 'validating_files' || status === 'queued').length,
    storageBytes: storedBytes(tables, id),
    monthGpuSeconds: (usage !== undefined && usage.monthMs >= monthMs ? usage.monthGpuSeconds : 0) + liveSeconds,
    decayedGpuSeconds: usage === undefined ? 0 : decayedUsage(usage.decayedGpuSeconds, nowMs - usage.decayedAtMs),
  };
}

function storedBytes(tables: Tables, teamId: string): number {
  return [...tables.files.values()].filter((file) => file.teamId === teamId && file.deletedAt === null).reduce((sum, { bytes }) => sum + bytes, 0);
}

function fileMethods(tables: Tables): Pick<RecordStore, 'createFile' | 'getFile' | 'listFiles' | 'setFileStatus' | 'deleteFile' | 'upsertDatasetVersion'> {
  const fileOf = (teamId: string, id: string) => {
    const file = tables.files.get(id);
    return file?.teamId === teamId && file.deletedAt === null ? file : undefined;
  };
  return {
    createFile: async (file) => {
      const quota = tables.quotaOf(file.teamId).storageBytes;
      const used = storedBytes(tables, file.teamId);
      if (quota !== null && used + file.bytes > quota) {
        throw new TunefleetError('capacity', `the file has ${file.bytes} bytes, your team's files have ${used}, and its quota is ${quota}`, { reason: 'storage_quota_exceeded', param: 'file', details: { bytes: file.bytes, used, quota }, retry: 'never' });
      }
      const row = { ...file, filename: plainText(file.filename), id: tables.newId('file'), status: 'uploaded' as const, statusDetails: null, createdAt: tables.now(), deletedAt: null };
      tables.files.set(row.id, row);
      return row;
    },
    getFile: async (teamId, id) => fileOf(teamId, id) ?? null,
    listFiles: async (teamId, { after, limit, purpose, order }) => {
      const sorted = [...tables.files.values()].filter((file) => file.teamId === teamId).sort(newestFirst);
      const all = order === 'asc' ? sorted.reverse() : sorted;
      const start = after === undefined ? 0 : all.findIndex(({ id }) => id === after) + 1;
      if (after !== undefined && start === 0) throw unknownAfter(after);
      return pageOrThrow(all.slice(start).filter((file) => file.deletedAt === null && (purpose === undefined || file.purpose === purpose)), undefined, limit);
    },
    setFileStatus: async (id, status, statusDetails) => {
      const file = tables.files.get(id);
      if (file !== undefined) tables.files.set(id, { ...file, status, statusDetails: statusDetails === null ? null : plainText(statusDetails) });
    },
    deleteFile: async (teamId, id) => {
      const file = fileOf(teamId, id);
      if (file === undefined) return null;
      const user = [...tables.jobs.values()].find((job) => job.teamId === teamId && job.finishedAt === null && JSON.stringify(job.spec).includes(JSON.stringify(id)));
      if (user !== undefined) throw new TunefleetError('invalid_input', `file ${id} is used by job ${user.id}`, { reason: 'file_in_use', param: 'file_id', details: { jobId: user.id } });
      const deleted = { ...file, deletedAt: tables.now() };
      tables.files.set(id, deleted);
      return deleted;
    },
    upsertDatasetVersion: async (version) => {
      const key = `${version.teamId} ${version.contentHash} ${version.format}`;
      const known = tables.datasets.get(key) ?? { id: tables.newId('datasetVersion'), createdAt: tables.now() };
      const row = { ...known, ...version, summary: storable(version.summary) };
      tables.datasets.set(key, row);
      return row;
    },
  };
}

function progressMethods(tables: Tables): Pick<RecordStore, 'listEvents' | 'appendEvent' | 'appendEventOnce' | 'listCheckpoints' | 'getCheckpoint' | 'listMetrics' | 'listAttempts' | 'listCompany'> {
  return {
    listEvents: async (jobId, { after, limit }) => pageOrThrow([...(tables.events.get(jobId) ?? [])].reverse(), after, limit),
    appendEvent: async ({ jobId, ...event }) => {
      if (tables.jobs.has(jobId)) insertEvents(tables, jobId, [event]);
    },
    appendEventOnce: async ({ jobId, ...event }) => {
      const isSaid = tables.events.get(jobId)?.some(({ message }) => message === plainText(event.message)) ?? false;
      if (!isSaid && tables.jobs.has(jobId)) insertEvents(tables, jobId, [event]);
    },
    listCheckpoints: async (jobId, { after, limit }) => pageOrThrow(tables.checkpointsOf(jobId), after, limit),
    getCheckpoint: async (id) => tables.checkpoints.get(id) ?? null,
    listMetrics: async (jobId, { name, sinceStep, limit }) =>
      [...(tables.metrics.get(jobId)?.values() ?? [])]
        .filter((point) => (name === undefined || point.name === name) && (sinceStep === undefined || point.step > sinceStep))
        .sort((a, b) => a.step - b.step || (a.name < b.name ? -1 : 1))
        .slice(0, limit)
        .map((point) => ({ name: point.name, step: point.step, value: point.value })),
    listAttempts: async (jobId) => tables.attemptsOf(jobId),
    listCompany: async (jobId) => companyOf(tables, jobId),
  };
}

function adapterMethods(tables: Tables): Pick<RecordStore, 'listAdapters' | 'getAdapterByName' | 'getAdapterByJob' | 'deleteAdapter'> {
  const ofTeam = (teamId: string) =>
    [...tables.adapters.values()].filter((adapter) => adapter.teamId === teamId && adapter.deletedAt === null).sort(newestFirst).map(({ deletedAt: _deletedAt, ...adapter }) => adapter);
  return {
    listAdapters: async (teamId) => ofTeam(teamId),
    getAdapterByName: async (teamId, name) => ofTeam(teamId).find((adapter) => adapter.name === name) ?? null,
    getAdapterByJob: async (teamId, jobId) => ofTeam(teamId).find((adapter) => adapter.jobId === jobId) ?? null,
    deleteAdapter: async (teamId, name) => {
      const found = ofTeam(teamId).find((adapter) => adapter.name === name);
      if (found !== undefined) tables.adapters.set(found.id, { ...found, deletedAt: tables.now() });
      return found !== undefined;
    },
  };
}

function workerControlMethods(tables: Tables): Pick<RecordStore, 'listWorkers' | 'countLiveAttempts' | 'setWorkerCordoned' | 'drainWorker'> {
  const change = (id: string, changes: Partial<WorkerRecord>): WorkerRecord | null => {
    if (!tables.workers.has(id)) return null;
    tables.changeWorker(id, changes);
    tables.announce('schedule');
    return tables.workers.get(id) ?? null;
  };
  return {
    listWorkers: async () => [...tables.workers.values()].sort((a, b) => (`${a.name} ${a.id}` < `${b.name} ${b.id}` ? -1 : 1)),
    countLiveAttempts: async () => tables.liveAttempts().reduce((counts, { workerId }) => counts.set(workerId, (counts.get(workerId) ?? 0) + 1), new Map<string, number>()),
    setWorkerCordoned: async (id, cordoned, reason) =>
      change(id, cordoned ? { cordoned, cordonReason: reason ?? null } : { cordoned, cordonReason: null, drain: null, drainDeadline: null, uncordonedAt: tables.now() }),
    drainWorker: async (id, { mode, deadlineMs, graceMs }) => {
      const drainDeadline = deadlineMs === undefined ? null : new Date(tables.nowMs() + deadlineMs);
      const drained = change(id, { cordoned: true, cordonReason: 'draining', drain: mode, drainDeadline });
      if (drained !== null) stopDrained(tables, graceMs, id);
      return drained;
    },
  };
}
