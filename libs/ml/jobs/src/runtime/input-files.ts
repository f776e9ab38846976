import { mkdir, symlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { ArtifactRef } from '@tunefleet/contracts';
import { invariant } from '@tunefleet/foundation';

type InputFiles = ReadonlyMap<string, string>;

/** Local path of an input artifact. */
export function inputFile(inputFiles: InputFiles, { name, sha256 }: ArtifactRef): string {
  const path = inputFiles.get(sha256);
  invariant(path !== undefined, `the job was started without its input "${name}" (${sha256})`);
  return path;
}

/** Makes the folder a list of artifacts stands for, out of links, and returns its path. */
export async function inputFolder(inputFiles: InputFiles, artifacts: readonly ArtifactRef[], dir: string): Promise<string> {
  await mkdir(dir, { recursive: true });
  for (const artifact of artifacts) await symlink(resolve(inputFile(inputFiles, artifact)), join(dir, artifact.name));
  return dir;
}
