import type { ArtifactRef } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { SentFile } from '../http/send-blob';

/** @throws not_found naming the files there are */
export function artifactOf(artifacts: readonly ArtifactRef[], name: string, owner: string): SentFile {
  const artifact = artifacts.find((candidate) => candidate.name === name);
  if (artifact === undefined) {
    throw new TunefleetError('not_found', `${owner} has no file '${name.slice(0, 100)}'; it has ${artifacts.map((file) => file.name).join(', ')}`, { param: 'name' });
  }
  return { sha256: artifact.sha256, bytes: artifact.bytes, filename: artifact.name };
}
