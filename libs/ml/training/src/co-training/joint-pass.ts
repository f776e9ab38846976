import { IGNORED_LABEL } from '@tunefleet/ml-data';
import type { CausalLm } from '@tunefleet/ml-models';
import { headOf, type ModelHook } from '@tunefleet/ml-nn';
import { add, gradients, headRowObjective, splitAxis, type Tensor } from '@tunefleet/ml-tensor';
import { routeHooks } from '@tunefleet/ml-tuners';
import { nextToken, type PassLoss } from '../objective';
import { readSums, type PassSums } from '../pass-sums';
import type { Trainer } from '../trainer';
import type { PlannedPass } from '../training-run';
import { joinBatches, type JoinedBatch } from './join-batches';
import type { JointParameters } from './joint-parameters';

/** A run's part in a pass that several share. */
export interface PassMember {
  /** Its place among the runs of the parameters. */
  readonly run: number;
  readonly trainer: Trainer;
  readonly pass: PlannedPass;
}

/**
 * One forward and backward pass for several runs: each on rows of its own, under its own adapter and loss. No number of one run enters another's, so a run whose loss
 * is not finite harms none of the others.
 * @returns per member what its pass alone would have given, up to rounding
 */
export function jointPass(model: CausalLm, members: readonly PassMember[], parameters: JointParameters, recomputeBlocks: boolean): PassSums[] {
  const { device } = model;
  return device.scope(() => {
    const joined = joinBatches(members.map(({ pass }) => pass.batch));
    const byRun = parameters.bind(new Map(members.map(({ run, pass }) => [run, pass])));
    const hooks = members.map(({ run }) => byRun.get(run) as ModelHook);
    const adapter = routeHooks(model, members.map(({ pass: { batch } }, index) => ({ rows: batch.tokens.rows, columns: batch.tokens.columns, hook: withoutHead(hooks[index] as ModelHook) })));
    const { result, gradients: all } = gradients(device, parameters.tensors, () => {
      const hidden = model.forward(joined.tokens, { adapter, recomputeBlocks, outputRows: joined.outputRows });
      return lossesOf(model, members, hooks, joined, hidden);
    });
    const gradientOf = parameters.read(all);
    return members.map(({ run }, index) => ({ ...(result.sums[index] as PassSums), gradient: gradientOf[run] as Float32Array }));
  });
}

/** Whoever computes the loss applies the head. */
function withoutHead({ head: _head, ...hook }: ModelHook): ModelHook {
  return hook;
}

interface JointLoss {
  readonly loss: Tensor;
  readonly sums: readonly PassSums[];
}

/** Runs that learn to predict the next token under the base's head share its product; any other loss has its rows to itself. */
function lossesOf(model: CausalLm, members: readonly PassMember[], hooks: readonly ModelHook[], { labels }: JoinedBatch, hidden: Tensor): JointLoss {
  const shares = members.map(({ trainer }, index) => trainer.run.objective === nextToken && !hooks[index]?.head);
  if (shares.every(Boolean)) return nextTokenLosses(model, members, labels, hidden);
  const parts = splitAxis(hidden, labels.map(({ length }) => length), 0);
  const losses = members.map(({ trainer, pass: { batch, scale } }, index): PassLoss => {
    const { dataset } = trainer.options;
    return trainer.run.objective.loss({ hidden: parts[index] as Tensor, head: headOf(model, hooks[index] ?? null), labels: labels[index] as Int32Array, batch, dataset, scale });
  });
  return { loss: losses.map(({ loss }) => loss).reduce(add), sums: losses.map(readSums) };
}

const NO_SUMS: PassSums['sums'] = {};

function nextTokenLosses(model: CausalLm, members: readonly PassMember[], labels: readonly Int32Array[], hidden: Tensor): JointLoss {
  const sums: PassSums[] = [];
  const owners = labels.flatMap((own, member) => [...own].flatMap((label) => (label === IGNORED_LABEL ? [] : [member])));
  const loss = headRowObjective(hidden, headOf(model, null), Int32Array.from(labels.flatMap((own) => [...own])), (losses, likeliest) => {
    const [totals, hits] = [new Float64Array(members.length), new Float64Array(members.length)];
    owners.forEach((member, row) => {
      totals[member] = (totals[member] as number) + (losses[row] as number);
      hits[member] = (hits[member] as number) + (likeliest[row] as number);
    });
    members.forEach(({ pass: { scale } }, member) => (sums[member] = { loss: (totals[member] as number) * scale, correct: hits[member] as number, sums: NO_SUMS }));
    return { value: sums.reduce((sum, { loss: own }) => sum + own, 0), slopes: Float32Array.from(owners, (member) => members[member]?.pass.scale ?? NaN) };
  });
  return { loss, sums };
}
