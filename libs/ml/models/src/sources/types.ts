export type ModelSourceKind = 'hub' | 'local' | 'mirror';

export interface ResolvedModel {
  /** As the user wrote it: `owner/name`, or a folder path. */
  readonly id: string;
  /** Names these exact weights: a commit hash, `mirror-<package>-<version>`, or `local-<hash>`. */
  readonly revision: string;
  /** Holds config.json, safetensors weights and tokenizer files. Shared: never written to. */
  readonly folder: string;
  /** Content of config.json, unchecked; parse it with the architecture's schema. */
  readonly config: unknown;
  readonly source: ModelSourceKind;
  /** What the user should be told, e.g. that the hub could not be reached. */
  readonly notices: readonly string[];
}

/** What can be said about a model without its weights. */
export interface ModelDescription {
  readonly id: string;
  readonly revision: string;
  readonly config: unknown;
  readonly source: ModelSourceKind;
  /** Bytes of the weight files, null when unknown. */
  readonly weightBytes: number | null;
  readonly notices: readonly string[];
}

export interface ModelProgress {
  readonly phase: 'download' | 'convert';
  /** File name, or the package. */
  readonly what: string;
  /** Bytes for downloads; 0..1 against a total of 1 for conversions. */
  readonly done: number;
  /** Null when unknown. */
  readonly total: number | null;
}

export interface ResolveOptions {
  /** Branch, tag, commit hash or a revision that `resolve` or `describe` returned; the default branch when absent. */
  readonly revision?: string | undefined;
  readonly onProgress?: ((progress: ModelProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}
