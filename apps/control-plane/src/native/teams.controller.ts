import { Controller, Get, Inject, Param, Patch, Put } from '@nestjs/common';
import { changeTeamSchema, putQuotaSchema, teamListSchema, teamSchema, type TeamView } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { RecordStore, TeamAccountRecord, TeamQuota } from '@tunefleet/ports';
import type { z } from 'zod';
import { Operation } from '../http/operation';
import { ValidBody } from '../http/zod-pipe';
import { RECORD_STORE } from '../tokens';

@Controller('api/v1/teams')
export class TeamsController {
  constructor(@Inject(RECORD_STORE) private readonly records: Pick<RecordStore, 'listTeams' | 'getTeam' | 'setTeamQuota'>) {}

  @Get()
  @Operation('List teams with their quotas and what they have of them', { answer: teamListSchema })
  async list() {
    return { object: 'list' as const, data: (await this.records.listTeams()).map(teamView), has_more: false as const };
  }

  @Get(':name')
  @Operation('A team with its quotas and what it has of them', { answer: teamSchema })
  async get(@Param('name') name: string): Promise<TeamView> {
    return this.view(name, await this.records.getTeam(name));
  }

  @Patch(':name')
  @Operation("Change a team's weight, quotas and whether its jobs may share workers: what is left out stays, null lifts a bound", { answer: teamSchema })
  async change(@Param('name') name: string, @ValidBody(changeTeamSchema, { nulls: true }) changes: z.output<typeof changeTeamSchema>): Promise<TeamView> {
    return this.view(name, await this.records.setTeamQuota(name, changesOf(changes)));
  }

  @Put(':name/quota')
  @Operation("Set a team's weight and quotas, all of them: what is left out has no bound", { answer: teamSchema })
  async setQuota(@Param('name') name: string, @ValidBody(putQuotaSchema) quota: z.output<typeof putQuotaSchema>): Promise<TeamView> {
    const team = await this.records.setTeamQuota(name, {
      weight: quota.weight,
      runningJobs: quota.running_jobs ?? null,
      gpuHoursPerMonth: quota.gpu_hours_per_month ?? null,
      queuedJobs: quota.queued_jobs ?? null,
      storageBytes: quota.storage_bytes ?? null,
    });
    return this.view(name, team);
  }

  private view(name: string, team: TeamAccountRecord | null): TeamView {
    if (team === null) throw new TunefleetError('not_found', `no such team: '${name.slice(0, 100)}'. GET /api/v1/teams lists those there are`, { param: 'name' });
    return teamView(team);
  }
}

function changesOf(changes: z.output<typeof changeTeamSchema>): Partial<TeamQuota> {
  const { weight, shares_workers: sharesWorkers, running_jobs: runningJobs, gpu_hours_per_month: gpuHoursPerMonth, queued_jobs: queuedJobs, storage_bytes: storageBytes } = changes;
  const all = { weight, sharesWorkers, runningJobs, gpuHoursPerMonth, queuedJobs, storageBytes };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

function teamView({ id, name, quota, ...usage }: TeamAccountRecord): TeamView {
  return {
    id,
    object: 'team',
    name,
    weight: quota.weight,
    shares_workers: quota.sharesWorkers,
    quotas: { running_jobs: quota.runningJobs, gpu_hours_per_month: quota.gpuHoursPerMonth, queued_jobs: quota.queuedJobs, storage_bytes: quota.storageBytes },
    usage: {
      running_jobs: usage.runningJobs,
      gpu_hours_month: usage.monthGpuSeconds / 3600,
      gpu_hours_decayed: usage.decayedGpuSeconds / 3600,
      queued_jobs: usage.queuedJobs,
      storage_bytes: usage.storageBytes,
    },
  };
}
