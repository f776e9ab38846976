export { openBlobsFs } from './open-blobs-fs';
