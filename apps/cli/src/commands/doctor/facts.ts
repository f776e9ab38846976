import { z } from 'zod';

/** What the engine's `probe` command prints: the device it opened, measured. */
export const engineProbeSchema = z.object({
  backend: z.enum(['tensorflow', 'wasm']),
  backendVersion: z.string(),
  deviceName: z.string(),
  gpu: z.boolean(),
  bf16: z.boolean(),
  threads: z.int(),
  memoryBytesTotal: z.number(),
  memoryBytesFree: z.number(),
  gflopsF32: z.number(),
  /** null where bf16 does not exist. */
  gflopsBf16: z.number().nullable(),
  /** What `compute_dtype: auto` becomes here. */
  recommended: z.enum(['f32', 'bf16']),
  /** Why TensorFlow was not used; null when it was. */
  fallback: z.string().nullable(),
});
export type EngineProbe = z.infer<typeof engineProbeSchema>;

export type EngineFact =
  | { readonly kind: 'answered'; readonly probe: EngineProbe }
  | { readonly kind: 'missing'; readonly file: string }
  | { readonly kind: 'failed'; readonly reason: string };

/** Something that either works, with what it is, or does not, with why. */
export type Outcome = { readonly ok: true; readonly found: string } | { readonly ok: false; readonly reason: string };

export interface FolderFact {
  readonly path: string;
  readonly writable: boolean;
  readonly bytesFree: number;
}

/** Everything `doctor` looks at, as found; no judgement. */
export interface DoctorFacts {
  readonly nodeVersion: string;
  /** Node's names, e.g. linux-x64. */
  readonly platform: string;
  readonly processor: string;
  readonly cores: number;
  readonly memoryBytesTotal: number;
  readonly memoryBytesFree: number;
  readonly nvidiaCard: boolean;
  readonly engine: EngineFact;
  readonly compiler: Outcome;
  readonly python: Outcome;
  readonly pip: Outcome;
  readonly database: { readonly source: 'DATABASE_URL' | 'embedded' } & Outcome;
  /** null: no REDIS_URL. */
  readonly redis: Outcome | null;
  readonly cacheDir: FolderFact;
  readonly dataDir: FolderFact;
  /** Where models come from, in the order they are asked. */
  readonly modelSources: readonly ({ readonly name: string } & Outcome)[];
  /** `id@revision` of models that need no download. */
  readonly modelsOnDisk: readonly string[];
}
