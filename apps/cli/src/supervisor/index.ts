export { startService, type RunningService, type ServiceOptions } from './service';
export { secretsFile } from './secrets';
