export { TunefleetClient } from './client';
export { TunefleetApiError } from './http/api-error';
export type { CallOptions, ClientOptions } from './http/transport';
export type { FileQuery, UploadRequest } from './resources/files';
export type { JobQuery, MetricQuery } from './resources/jobs';
export type { EvalQuery } from './resources/evals';
export type { CreateOptions, MetadataQuery, PageQuery } from './resources/queries';
export type { JobStreamOptions } from './stream/job-stream';
