import { Inject, Injectable } from '@nestjs/common';
import { TunefleetError } from '@tunefleet/foundation';
import { parseModelId } from '@tunefleet/ml-models/specs';
import type { RecordStore } from '@tunefleet/ports';
import { RECORD_STORE } from '../tokens';
import { isTunedModelName } from './model-names';

/** What a model name of a request stands for, as far as it can be known without asking the hub: intake does that. */
@Injectable()
export class ModelLookup {
  constructor(@Inject(RECORD_STORE) private readonly records: Pick<RecordStore, 'getAdapterByName'>) {}

  /**
   * @returns the id of the base model the name stands on
   * @throws not_found for a tuned model that is not there; invalid_input for what can be no model's name
   */
  async baseOf(teamId: string, name: string, param: string): Promise<string> {
    if (isTunedModelName(name)) {
      const adapter = await this.records.getAdapterByName(teamId, name);
      if (adapter === null) throw new TunefleetError('not_found', `no such model: '${name}'. GET /v1/models lists those there are`, { reason: 'model_not_found', param });
      return adapter.baseModel;
    }
    parseModelId(name);
    return name;
  }
}
