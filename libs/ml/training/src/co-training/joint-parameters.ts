import type { CausalLm } from '@tunefleet/ml-models';
import type { ModelHook } from '@tunefleet/ml-nn';
import type { Tensor } from '@tunefleet/ml-tensor';
import type { Tuner } from '@tunefleet/ml-tuners';
import { ParameterViews } from '../parameter-views';
import type { Trainer } from '../trainer';
import { trainingHook, withTrainingNoise } from '../training-hook';
import type { PlannedPass } from '../training-run';

/**
 * The values of several runs on the device. Runs whose tuners can be lanes of one are uploaded, bound and read as one: what a step does beside its products
 * then takes the ops of one run, however many there are.
 */
export class JointParameters implements Disposable {
  readonly #groups: readonly RunGroup[];

  constructor(
    private readonly model: CausalLm,
    private readonly trainers: readonly Trainer[],
  ) {
    this.#groups = laneGroups(model, trainers).map((runs) => {
      const own = runs.map((run) => trainers[run] as Trainer);
      const { tuner } = (own[0] as Trainer).options;
      return { runs, views: new ParameterViews(model.device, tuner.parameters, own.length === 1 ? (own[0] as Trainer).state.values : own.map(({ state }) => state.values)) };
    });
  }

  get tensors(): readonly Tensor[] {
    return this.#groups.flatMap(({ views }) => views.tensors);
  }

  /** What is active for each run's rows. @param passes by run, of those that take part   @returns hooks by run, as `Tuner.bind` */
  bind(passes: ReadonlyMap<number, PlannedPass>): ReadonlyMap<number, ModelHook> {
    const hooks = new Map<number, ModelHook>();
    for (const { runs, views } of this.#groups) {
      if (!runs.some((run) => passes.has(run))) continue;
      const lanes = runs.length === 1 ? null : this.#bindLanes(runs, views);
      runs.forEach((run, lane) => {
        const pass = passes.get(run);
        if (!pass) return;
        const { options } = this.trainers[run] as Trainer;
        const bound = lanes?.[lane];
        hooks.set(run, bound ? withTrainingNoise(bound, options.settings, pass) : trainingHook(this.model, options, views.tensors, pass));
      });
    }
    return hooks;
  }

  /** @param gradients of `tensors`, null where zero   @returns [P] on the host, by run */
  read(gradients: readonly (Tensor | null)[]): Float32Array[] {
    const byRun: Float32Array[] = [];
    let at = 0;
    for (const { runs, views } of this.#groups) {
      const flat = views.readFlat(this.model.device, gradients.slice(at, (at += views.tensors.length)));
      const count = flat.length / runs.length;
      runs.forEach((run, lane) => (byRun[run] = runs.length === 1 ? flat : flat.slice(lane * count, (lane + 1) * count)));
    }
    return byRun;
  }

  [Symbol.dispose](): void {
    for (const { views } of this.#groups) views[Symbol.dispose]();
  }

  #bindLanes(runs: readonly number[], views: ParameterViews): readonly ModelHook[] {
    const tuners = runs.map((run) => this.trainers[run]?.options.tuner as Tuner);
    return tuners[0]?.bindLanes?.(this.model, tuners, views.tensors) ?? [];
  }
}

interface RunGroup {
  /** One, or several that are lanes of each other. */
  readonly runs: readonly number[];
  readonly views: ParameterViews;
}

function laneGroups(model: CausalLm, trainers: readonly Trainer[]): number[][] {
  const groups: number[][] = [];
  const byKey = new Map<string, number[]>();
  trainers.forEach(({ options: { tuner } }, run) => {
    const key = tuner.laneKey?.(model) ?? null;
    const known = key === null ? undefined : byKey.get(key);
    if (known) return void known.push(run);
    const group = [run];
    groups.push(group);
    if (key !== null) byKey.set(key, group);
  });
  return groups;
}
