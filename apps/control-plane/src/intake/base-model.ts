import type { BaseModelRef } from '@tunefleet/contracts';
import { TunefleetError, isTunefleetError } from '@tunefleet/foundation';
import { describeCausalLm, type CausalLmDescription, type ModelDescription, type ModelResolver } from '@tunefleet/ml-models/specs';
import type { AdapterRecord, RecordStore } from '@tunefleet/ports';
import { isTunedModelName } from '../jobs/model-names';
import { Recent } from './recent';

/** What a model name of a request stands for: a base model, or an adapter on one. */
export interface NamedModel {
  readonly name: string;
  readonly baseId: string;
  readonly adapter: AdapterRecord | null;
}

export interface DescribedBase {
  /** With the revision pinned. */
  readonly ref: BaseModelRef;
  readonly model: CausalLmDescription;
  readonly notices: readonly string[];
}

/** @throws not_found for a tuned model that is gone */
export async function findNamedModel(records: Pick<RecordStore, 'getAdapterByName'>, teamId: string, name: string, param: string): Promise<NamedModel> {
  if (!isTunedModelName(name)) return { name, baseId: name, adapter: null };
  const adapter = await records.getAdapterByName(teamId, name);
  if (adapter === null) throw new TunefleetError('not_found', `there is no model ${name}: it may have been deleted; GET /v1/models lists those there are`, { reason: 'model_not_found', param });
  return { name, baseId: adapter.baseModel, adapter };
}

/**
 * Looks a base model up where models come from, without its weights.
 * @param revision to look at; absent: the newest, which is then pinned
 * @throws what `ModelResolver.describe` throws, with `param`; incompatible_artifact for an architecture we do not run
 */
export async function describeBase(resolver: Pick<ModelResolver, 'describe'>, id: string, options: { readonly revision: string | undefined; readonly param: string; readonly signal: AbortSignal }): Promise<DescribedBase> {
  const { revision, param, signal } = options;
  try {
    const described = await resolver.describe(id, { revision, signal });
    return { ref: { id, revision: described.revision }, model: modelOf(id, described), notices: described.notices };
  } catch (error) {
    if (!isTunefleetError(error) || error.param === param) throw error;
    throw new TunefleetError(error.code, error.message, { reason: error.reason ?? 'model_not_available', param, cause: error, details: error.details, retry: error.retry });
  }
}

const DESCRIPTIONS_MAX = 50;
const descriptions = new Recent<CausalLmDescription>(DESCRIPTIONS_MAX);

/** A revision's configuration never changes. @throws incompatible_artifact */
function modelOf(id: string, { revision, config }: ModelDescription): CausalLmDescription {
  const key = `${id}@${revision}`;
  const model = descriptions.get(key) ?? describeCausalLm(config);
  descriptions.set(key, model);
  return model;
}
