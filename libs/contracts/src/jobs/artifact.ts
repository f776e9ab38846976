import { z } from 'zod';

/** One stored blob as a file of a folder (an adapter, a checkpoint). `name` is a plain file name: no separators, no dots in front. */
export const artifactRefSchema = z.object({
  name: z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/, 'a plain file name'),
  sha256: z.string().regex(/^[0-9a-f]{64}$/, 'lower-case hexadecimal SHA-256'),
  bytes: z.int().min(0),
});
export type ArtifactRef = z.infer<typeof artifactRefSchema>;

export const artifactListSchema = z.array(artifactRefSchema).max(64);
