import {
  adapterSchema,
  apiErrorSchema,
  apiFileSchema,
  apiModelSchema,
  artifactRefSchema,
  attemptSchema,
  checkpointSchema,
  evalJobSchema,
  evalMetricSchema,
  evalResultSchema,
  fineTuneResultSchema,
  fineTuningCheckpointSchema,
  fineTuningEventSchema,
  fineTuningJobSchema,
  jobDetailSchema,
  jobErrorSchema,
  jobEventSchema,
  jobSummarySchema,
  statusSchema,
  supervisedHyperparametersSchema,
  teamSchema,
  workerSchema,
  workerTokenSchema,
} from '@tunefleet/contracts';
import { z } from 'zod';

type Json = Readonly<Record<string, unknown>>;

/** Schemas that get a name of their own; all others are written out where they are used. */
const NAMED: Readonly<Record<string, z.ZodType>> = {
  Error: apiErrorSchema,
  File: apiFileSchema,
  Model: apiModelSchema,
  FineTuningJob: fineTuningJobSchema,
  FineTuningEvent: fineTuningEventSchema,
  FineTuningCheckpoint: fineTuningCheckpointSchema,
  FineTuneResult: fineTuneResultSchema,
  Hyperparameters: supervisedHyperparametersSchema,
  EvalJob: evalJobSchema,
  EvalMetric: evalMetricSchema,
  EvalResult: evalResultSchema,
  Job: jobSummarySchema,
  JobDetail: jobDetailSchema,
  JobError: jobErrorSchema,
  JobEvent: jobEventSchema,
  Attempt: attemptSchema,
  Artifact: artifactRefSchema,
  Checkpoint: checkpointSchema,
  Adapter: adapterSchema,
  Team: teamSchema,
  Worker: workerSchema,
  WorkerToken: workerTokenSchema,
  Status: statusSchema,
};

/** JSON schemas of an OpenAPI document, named ones kept once. Requests (`input`) and answers (`output`) differ by defaults. */
export class Components {
  private readonly schemas = new Map<string, Json>();

  schema(schema: z.ZodType, io: 'input' | 'output'): Json {
    const registry = z.registry<{ id: string }>();
    for (const [name, named] of Object.entries(NAMED)) registry.add(named, { id: io === 'input' ? `${name}Input` : name });
    const { $schema: _schema, $defs, ...json } = z.toJSONSchema(schema, { metadata: registry, io, unrepresentable: 'any' });
    for (const [name, definition] of Object.entries($defs ?? {})) this.schemas.set(name, rewritten(definition));
    const id = registry.get(schema)?.id;
    if (id === undefined) return rewritten(json);
    this.schemas.set(id, rewritten(json));
    return { $ref: reference(id) };
  }

  all(): Readonly<Record<string, Json>> {
    return Object.fromEntries([...this.schemas].sort(([a], [b]) => (a < b ? -1 : 1)));
  }
}

const DEFINITIONS = '#/$defs/';

function reference(name: string): string {
  return `#/components/schemas/${name}`;
}

/** References point into the document; `id` is zod's own note of a name. */
function rewritten(json: object): Json {
  return JSON.parse(
    JSON.stringify(json, (key, value: unknown) => (key === '$ref' && typeof value === 'string' && value.startsWith(DEFINITIONS) ? reference(value.slice(DEFINITIONS.length)) : value)),
  ) as Json;
}
