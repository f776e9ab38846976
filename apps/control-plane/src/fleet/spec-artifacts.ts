import { artifactRefSchema, type ArtifactRef } from '@tunefleet/contracts';

/** Depth of a worker spec; deeper ones are refused by their schemas already. */
const MAX_DEPTH = 8;

/**
 * Every artifact a worker spec names, wherever it stands, once per hash: what the worker must fetch before it starts.
 * Kinds need no line here, because an artifact reference looks the same in all of them.
 */
export function collectArtifacts(spec: unknown): ArtifactRef[] {
  const found = new Map<string, ArtifactRef>();
  visit(spec, MAX_DEPTH, found);
  return [...found.values()];
}

function visit(value: unknown, depth: number, found: Map<string, ArtifactRef>): void {
  if (typeof value !== 'object' || value === null || depth === 0) return;
  const artifact = artifactRefSchema.safeParse(value);
  if (artifact.success) {
    found.set(artifact.data.sha256, artifact.data);
    return;
  }
  for (const inner of Object.values(value)) visit(inner, depth - 1, found);
}
