import { invariant, TunefleetError } from '@tunefleet/foundation';
import { Totals, type PassSums } from '../pass-sums';
import type { StopCheck, Trainer } from '../trainer';
import type { PlannedPass, PlannedStep, StepResult } from '../training-run';
import { JointParameters } from './joint-parameters';
import { jointPass, type PassMember } from './joint-pass';
import { packPasses } from './pack-passes';

export interface TogetherOptions {
  /** Tokens of a pass that several runs share, padding included. */
  readonly tokensPerPass: number;
  readonly shouldStop?: StopCheck;
}

/** What became of a run's step; `failed` leaves its state as it was. */
export type StepOutcome = { readonly result: StepResult } | { readonly failed: TunefleetError };

/**
 * One optimiser step of each of several runs on the same model. Runs share passes through the model and nothing else: data, masks, gradient, clipping, learning rate
 * and update of each are those of `trainStep`, and its state may go on alone or with others afterwards. Stopped early it changes nothing.
 * @returns one outcome per run, with the seconds of the whole step; null when `shouldStop` said so
 * @throws TunefleetError `out_of_device_memory`, with no run changed, so that fewer tokens per pass can be tried; `invalid_input`, reason `not_routable`, if an adapter cannot share a pass
 */
export async function stepTogether(trainers: readonly Trainer[], { tokensPerPass, shouldStop = () => false }: TogetherOptions): Promise<StepOutcome[] | null> {
  const [first] = trainers;
  if (!first) return [];
  const { model } = first.options;
  invariant(trainers.every(({ options }) => options.model === model), 'runs on different models cannot share a pass');
  const started = performance.now();
  const steps = trainers.map(({ run }) => run.planStep());
  const totals = steps.map(() => new Totals());
  using parameters = new JointParameters(model, trainers);
  for (const places of jointPasses(steps, tokensPerPass)) {
    if (await shouldStop()) return null;
    const members = places.map(({ run, pass }): PassMember => ({ run, trainer: trainers[run] as Trainer, pass: steps[run]?.passes[pass] as PlannedPass }));
    const sums = jointPass(model, members, parameters, members.some(({ trainer }) => trainer.options.batching.recomputeBlocks));
    places.forEach(({ run }, index) => totals[run]?.add(sums[index] as PassSums));
  }
  return trainers.map(({ run }, index) => {
    try {
      return { result: { ...run.completeStep(steps[index] as PlannedStep, totals[index] as Totals), seconds: (performance.now() - started) / 1000 } };
    } catch (error) {
      if (error instanceof TunefleetError && error.code === 'numerical') return { failed: error };
      throw error;
    }
  });
}

interface PassOf {
  readonly run: number;
  readonly pass: number;
}

/** The passes of all steps, a run at most once in each: its passes come one after the other, as alone. */
function jointPasses(steps: readonly PlannedStep[], tokensMax: number): PassOf[][] {
  const most = Math.max(...steps.map(({ passes }) => passes.length));
  return Array.from({ length: most }, (_, pass) => {
    const runs = [...steps.keys()].filter((run) => pass < (steps[run] as PlannedStep).passes.length);
    return packPasses(runs.map((run) => (steps[run] as PlannedStep).passes[pass]?.batch.tokens as { rows: number; columns: number }), tokensMax).map((members) => members.map((member) => ({ run: runs[member] as number, pass })));
  }).flat();
}
