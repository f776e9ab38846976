import { join } from 'node:path';
import { totalmem } from 'node:os';
import type { BaseModelRef } from '@tunefleet/contracts';
import { orAborted, TunefleetError } from '@tunefleet/foundation';
import { cacheDirectory, describeCausalLm, loadCausalLm, ModelResolver, modelResolverOptions, type CausalLm, type Precision, type Quantisation, type ResolvedModel } from '@tunefleet/ml-models';
import { probeDevice, type Device, type DeviceProbe, type FloatDType } from '@tunefleet/ml-tensor';
import { TextTokenizer } from '@tunefleet/ml-tokenizers';
import type { JobEvents } from './job-context';
import { LoadReporter } from './load-reporter';
import { PeakMemory, peakRssBytes, resetPeakRss } from './peak-memory';
import { StepExchange } from './step-exchange';

/** A base model by name; without a revision its default branch is meant. */
export interface ModelChoice {
  readonly id: string;
  readonly revision?: string | undefined;
}

export type ComputeDtypeChoice = 'auto' | FloatDType;

/** A base model ready for use. It belongs to `EngineResources`. */
export interface OpenedModel extends Precision {
  readonly model: CausalLm;
  readonly tokenizer: TextTokenizer;
  /** The Hugging Face folder on this machine. */
  readonly folder: string;
  /** Content of config.json, unchecked. */
  readonly config: unknown;
  /** With the revision resolved. */
  readonly base: BaseModelRef;
}

/** Dispose it when it is not used any more: no other model can be opened meanwhile. */
export type BorrowedModel = OpenedModel & Disposable;

/** Where loading reports and what ends it early. */
export interface LoadContext {
  readonly events?: Pick<JobEvents, 'log' | 'progress' | 'model'> | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface EngineResourcesOptions {
  readonly device: Device;
  readonly resolver: ModelResolver;
  /** Folder for tokenised files; null: none are kept. */
  readonly tokenCacheDirectory: string | null;
  /** The built program of tokeniser threads; large files are tokenised in one thread without. */
  readonly tokeniserThread?: string;
}

/** Options from the environment, see `modelResolverOptions`; token files lie in `tokens/` of the cache folder. */
export function engineResourcesOptions(device: Device, environment: NodeJS.ProcessEnv = process.env): EngineResourcesOptions {
  return { device, resolver: new ModelResolver(modelResolverOptions(environment)), tokenCacheDirectory: join(cacheDirectory(environment), 'tokens') };
}

/** What the runs of an engine process share: the device, and the base model used last, which is kept so that the next job on it starts at once. */
export class EngineResources {
  readonly device: Device;
  readonly resolver: ModelResolver;
  readonly tokenCacheDirectory: string | null;
  readonly tokeniserThread: string | undefined;
  /** Where runs take their training steps. */
  readonly steps: StepExchange;
  /** Of what is on the device, and of the process. */
  readonly devicePeak: PeakMemory;
  readonly processPeak = new PeakMemory({ read: peakRssBytes, reset: resetPeakRss });
  #opened: OpenedModel | null = null;
  #borrowers = 0;
  /** The model that is now resolved and loaded; `done` never rejects. */
  #opening: { readonly done: Promise<void>; readonly reporter: LoadReporter } | null = null;
  #probe: DeviceProbe | null = null;

  constructor({ device, resolver, tokenCacheDirectory, tokeniserThread }: EngineResourcesOptions) {
    this.device = device;
    this.resolver = resolver;
    this.tokenCacheDirectory = tokenCacheDirectory;
    this.tokeniserThread = tokeniserThread;
    this.steps = new StepExchange(device);
    this.devicePeak = new PeakMemory({ read: () => device.memory.peakBytes, reset: () => device.resetPeak() });
  }

  /** Speed of the device, measured at the first call. */
  get probe(): DeviceProbe {
    return (this.#probe ??= probeDevice(this.device));
  }

  /** `id@revision` in device memory. */
  get modelInMemory(): string | null {
    return this.#opened === null ? null : nameOf(this.#opened.base);
  }

  /**
   * The model with its weights on the device: the one kept from the last job, or freshly loaded after that one was freed. Models are loaded one after the other.
   * @throws what `ModelResolver.resolve` and `loadCausalLm` throw; `unavailable` while another model, or this one in another precision, is borrowed; `invalid_input` for bf16
   * where the device has none; `out_of_device_memory`
   */
  async openModel(base: ModelChoice, choice: ComputeDtypeChoice | Precision, context: LoadContext = {}): Promise<BorrowedModel> {
    const precision = typeof choice === 'string' ? this.settlePrecision(choice) : choice;
    while (this.#opening !== null) {
      using _following = context.events && this.#opening.reporter.follow(context.events);
      await orAborted(this.#opening.done, context.signal, 'stopped while another run loaded its model');
    }
    const known = this.#kept(base, precision);
    if (known !== null) {
      context.events?.log('info', `${base.id} is already in memory`);
      return this.#lend(known);
    }
    const reporter = new LoadReporter(context.events, base.id);
    const opening = this.#open(base, precision, { ...context, reporter });
    this.#opening = { done: opening.then(noop, noop).then(() => void (this.#opening = null)), reporter };
    return opening;
  }

  async #open(base: ModelChoice, precision: Precision, { events, signal, reporter }: LoadContext & { readonly reporter: LoadReporter }): Promise<BorrowedModel> {
    try {
      this.#refuseBesideBorrowed(base, precision);
      const resolved = await this.resolver.resolve(base.id, { revision: base.revision, onProgress: (progress) => reporter.fetched(progress), signal });
      for (const notice of resolved.notices) events?.log('warn', notice);
      const pinned = { id: base.id, revision: resolved.revision };
      this.#refuseBesideBorrowed(pinned, precision);
      return this.#lend(this.#kept(pinned, precision) ?? (await this.#load(resolved, precision, { reporter, events, signal })));
    } finally {
      // Also after a failure: the old model may be gone, a download may have ended.
      events?.model(this.modelInMemory, await this.resolver.cached());
    }
  }

  /**
   * `auto` becomes what is faster here, decision 3; bf16 where the device has no instructions for it becomes bf16 weights with f32 arithmetic, decision 8.
   * @throws `invalid_input` when the device cannot hold bf16
   */
  settlePrecision(choice: ComputeDtypeChoice): Precision {
    if (choice === 'f32' || (choice === 'auto' && !this.device.info.bf16)) return { computeDtype: 'f32', weightDtype: 'f32' };
    if (!this.device.info.bf16) {
      throw new TunefleetError('invalid_input', `compute_dtype is "bf16", but this worker's ${this.device.info.backend} backend has no bf16; use "f32" or "auto"`, { reason: 'dtype_not_supported', param: 'compute_dtype' });
    }
    const { recommended } = this.probe;
    return { computeDtype: recommended, weightDtype: choice === 'auto' ? recommended : 'bf16' };
  }

  /** Frees the model; the device stays open. */
  close(): void {
    this.#opened?.model[Symbol.dispose]();
    this.#opened = null;
  }

  #lend(opened: OpenedModel): BorrowedModel {
    let isBorrowed = true;
    this.#borrowers++;
    const giveBack = (): void => {
      if (isBorrowed) this.#borrowers--;
      isBorrowed = false;
    };
    return { ...opened, [Symbol.dispose]: giveBack };
  }

  #kept(base: ModelChoice, precision: Precision): OpenedModel | null {
    const opened = this.#opened;
    return opened?.base.id === base.id && opened.base.revision === base.revision && samePrecision(opened, precision) ? opened : null;
  }

  /** A revision that is not known yet may turn out to be the borrowed one. */
  #refuseBesideBorrowed({ id, revision }: ModelChoice, precision: Precision): void {
    const opened = this.#opened;
    if (opened === null || this.#borrowers === 0) return;
    if (opened.base.id === id && (revision ?? opened.base.revision) === opened.base.revision && samePrecision(opened, precision)) return;
    const wanted = revision === undefined ? id : nameOf({ id, revision });
    throw new TunefleetError('unavailable', `this engine holds ${nameOf(opened.base)} in ${precisionText(opened)} for ${this.#borrowers} other ${this.#borrowers === 1 ? 'run' : 'runs'}, so it cannot open ${wanted} in ${precisionText(precision)}; it can once they have ended, another worker can now`, {
      reason: 'other_model_in_use',
    });
  }

  async #load({ id, revision, folder, config }: ResolvedModel, { computeDtype, weightDtype, quantisation = null }: Precision, { reporter, events, signal }: LoadContext & { readonly reporter: LoadReporter }): Promise<OpenedModel> {
    const tokenizer = await TextTokenizer.load(folder);
    this.close();
    this.#checkMemory(id, config, { computeDtype, weightDtype, quantisation });
    const started = performance.now();
    const model = await loadCausalLm(this.device, {
      folder,
      config,
      computeDtype,
      weightDtype,
      quantisation,
      signal,
      onProgress: (done, total) => reporter.loaded(done / total),
      onNotice: (notice) => events?.log('warn', notice),
    });
    reporter.done(model.weightBytes, weightText({ computeDtype, weightDtype, quantisation }), (performance.now() - started) / 1000);
    this.#opened = { model, tokenizer, folder, config, computeDtype, weightDtype, quantisation, base: { id, revision } };
    return this.#opened;
  }

  /** Main memory is the limit of a CPU device: beyond it the system would end the process without a word. */
  #checkMemory(id: string, config: unknown, precision: Precision): void {
    if (this.device.info.gpu) return;
    const { parameterCount, projections } = describeCausalLm(config);
    const quantised = precision.quantisation ? projections.reduce((sum, { inSize, outSize }) => sum + inSize * outSize, 0) : 0;
    const needed = (parameterCount - quantised) * (precision.weightDtype === 'bf16' ? 2 : 4) + quantised / 2;
    if (needed <= totalmem()) return;
    throw new TunefleetError('out_of_device_memory', `the weights of ${id} take ${gigabytes(needed)} GB in ${weightText(precision)}, this machine has ${gigabytes(totalmem())} GB; choose a smaller model or a larger machine`, {
      details: { neededBytes: needed, totalBytes: totalmem() },
    });
  }
}

/** `f32`, `bf16`, `f32 with weights in bf16`, or `f32 with weights in nf4`. */
export function precisionText(precision: Precision): string {
  const weights = weightText(precision);
  return precision.computeDtype === weights ? weights : `${precision.computeDtype} with weights in ${weights}`;
}

function weightText({ weightDtype, quantisation }: Precision): string {
  return quantisation?.type ?? weightDtype;
}

function samePrecision(a: Precision, b: Precision): boolean {
  return a.computeDtype === b.computeDtype && a.weightDtype === b.weightDtype && sameQuantisation(a.quantisation ?? null, b.quantisation ?? null);
}

function sameQuantisation(a: Quantisation | null, b: Quantisation | null): boolean {
  return a?.type === b?.type && a?.doubleQuant === b?.doubleQuant;
}

function nameOf({ id, revision }: BaseModelRef): string {
  return `${id}@${revision}`;
}

function gigabytes(bytes: number): string {
  return (bytes / 1e9).toFixed(1);
}

function noop(): void {}
