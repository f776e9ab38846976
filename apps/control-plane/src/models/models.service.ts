import { Inject, Injectable } from '@nestjs/common';
import type { ApiModel } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import { mirrorCatalogue } from '@tunefleet/ml-models/specs';
import type { AdapterRecord, RecordStore, TeamRecord } from '@tunefleet/ports';
import { unixSeconds } from '../http/time';
import { isTunedModelName } from '../jobs/model-names';
import { RECORD_STORE } from '../tokens';

/**
 * Models by their callable names. Any model of the hub can be a base; listed are those that are near: in the catalogue, on a worker's
 * disk, or under one of the team's adapters.
 */
@Injectable()
export class ModelsService {
  constructor(@Inject(RECORD_STORE) private readonly records: Pick<RecordStore, 'listAdapters' | 'listWorkers' | 'getAdapterByName' | 'deleteAdapter'>) {}

  async list(team: TeamRecord): Promise<ApiModel[]> {
    const [adapters, bases] = await Promise.all([this.records.listAdapters(team.id), this.knownBases(team)]);
    return [...bases.map(baseModel), ...adapters.map((adapter) => tunedModel(adapter, team))];
  }

  /** @throws not_found */
  async get(team: TeamRecord, name: string): Promise<ApiModel> {
    if (isTunedModelName(name)) {
      const adapter = await this.records.getAdapterByName(team.id, name);
      if (adapter === null) throw noSuchModel(name);
      return tunedModel(adapter, team);
    }
    if (!(await this.knownBases(team)).includes(name)) throw noSuchModel(name);
    return baseModel(name);
  }

  /** @throws not_found; permission_denied for base models */
  async delete(team: TeamRecord, name: string): Promise<void> {
    if (isTunedModelName(name) && (await this.records.deleteAdapter(team.id, name))) return;
    const found = await this.get(team, name);
    throw new TunefleetError('permission_denied', `'${found.id}' is a base model and is not the team's to delete: only tuned models (ft:…) can be`, { param: 'model' });
  }

  private async knownBases(team: TeamRecord): Promise<string[]> {
    const [workers, adapters] = await Promise.all([this.records.listWorkers(), this.records.listAdapters(team.id)]);
    const onDisk = workers.flatMap((worker) => worker.modelsOnDisk.map(withoutRevision));
    return [...new Set([...mirrorCatalogue.map((entry) => entry.id), ...onDisk, ...adapters.map((adapter) => adapter.baseModel)])].sort();
  }
}

/** Workers name models `id@revision`. */
function withoutRevision(model: string): string {
  const at = model.lastIndexOf('@');
  return at <= 0 ? model : model.slice(0, at);
}

function baseModel(id: string): ApiModel {
  // When somebody else made it is not known here; 0 is what the SDKs' types allow for that.
  return { id, object: 'model', created: 0, owned_by: id.includes('/') ? (id.split('/')[0] ?? 'unknown') : 'unknown', root: id, parent: null };
}

function tunedModel(adapter: AdapterRecord, team: TeamRecord): ApiModel {
  return { id: adapter.name, object: 'model', created: unixSeconds(adapter.createdAt), owned_by: team.name, root: adapter.name, parent: adapter.baseModel };
}

function noSuchModel(name: string): TunefleetError {
  return new TunefleetError('not_found', `no such model: '${name.slice(0, 300)}'. GET /v1/models lists those there are`, { reason: 'model_not_found', param: 'model' });
}
