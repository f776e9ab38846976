import { join } from 'node:path';
import type { EvalSpec } from '@tunefleet/contracts';
import { BatchGenerator } from '@tunefleet/ml-generation';
import type { ModelHook } from '@tunefleet/ml-nn';
import { loadAdapter, type LoadedAdapter } from '@tunefleet/ml-tuners';
import type { OpenedModel } from '../runtime/engine-resources';
import { inputFolder } from '../runtime/input-files';
import type { JobContext } from '../runtime/job-context';

/** One side of a comparison, ready to be asked. */
export interface Candidate {
  readonly model: string;
  readonly adapter: ModelHook | null;
  /** For text; knows model and adapter. */
  readonly generator: BatchGenerator;
}

/** All candidates of an eval on the loaded base. Disposing frees adapters, not the base. */
export class Candidates implements Disposable {
  readonly list: Candidate[] = [];
  readonly #adapters: LoadedAdapter[] = [];

  private constructor() {}

  /** @param workDir where adapter folders may be put together    @throws what `loadAdapter` throws */
  static async open({ spec, inputFiles, events }: JobContext<EvalSpec>, { model }: OpenedModel, workDir: string): Promise<Candidates> {
    const candidates = new Candidates();
    try {
      for (const [index, candidate] of spec.candidates.entries()) {
        let adapter: LoadedAdapter | null = null;
        if (candidate.adapter !== undefined) {
          const folder = await inputFolder(inputFiles, candidate.adapter, join(workDir, `adapter-${index}`));
          adapter = await loadAdapter(model, folder);
          for (const notice of adapter.notices) events.log('warn', `${candidate.model}: ${notice}`);
          candidates.#adapters.push(adapter);
        }
        const hook = adapter?.hook ?? null;
        candidates.list.push({ model: candidate.model, adapter: hook, generator: new BatchGenerator(model, hook) });
      }
      return candidates;
    } catch (error) {
      candidates[Symbol.dispose]();
      throw error;
    }
  }

  get tokensFed(): number {
    return this.list.reduce((total, { generator }) => total + generator.tokensFed, 0);
  }

  [Symbol.dispose](): void {
    for (const adapter of this.#adapters) adapter.dispose();
  }
}
