import type { TunableModel } from './tuner';

/** The TensorFlow-free half of a tuner. */
export interface TunerSpecHalf<Spec> {
  /** Name for people. */
  readonly title: string;
  /** @param fields a user's fields, `kind` included @throws TunefleetError `invalid_input` with param `tuner.<field>` */
  parse(fields: Readonly<Record<string, unknown>>): Spec;
  /** One line for people: what it trains, and what that is good for. */
  readonly summary: string;
  /** Peak learning rate that usually works, which `learning_rate_multiplier` multiplies. */
  readonly learningRate: number;
  /** Jobs of equal keys take alike memory and time on the same base, as `lora-8`. */
  shapeKey(spec: Spec): string;
  /** Fields that leave the shape of the trained weights alone, so that training may go on with other ones. */
  readonly freeFields: readonly string[];
  /** Elements per token that the backward pass keeps beyond what the blocks do; absent: none worth counting. */
  keptPerToken?(spec: Spec, model: TunableModel): number;
  /**
   * A bypass: hidden states per token that it starts from, which depend on the input alone. No gradient flows through the blocks then, so nothing of them is kept
   * but `keptPerToken`. Absent: gradients flow.
   */
  stemStates?(spec: Spec, model: TunableModel): number;
  /**
   * Blocks at the beginning that are left alone, and so is what enters them: no gradient goes back through them, and what they give depends on the input alone. As
   * many as there are: only what follows the last is changed. Absent: none, or, of a bypass, all.
   */
  untouchedBlocks?(spec: Spec, model: TunableModel): number;
  /** Token tables that are trained whole; absent: neither. */
  trainedTables?(spec: Spec, model: TunableModel): { readonly embedding: boolean; readonly head: boolean };
  /** How often a pass has its values on the device besides, in the compute dtype and with what fills them up; absent: not. */
  readonly boundCopies?: number;
  /** Copies of a map's input or output that its backward pass makes; absent: none. */
  inputCopies?(spec: Spec): number;
  /**
   * Whether a run's passes can be shared with other runs', each on rows of its own (`routeHooks`): it must change nothing that all rows of a pass share, as virtual
   * tokens and norms do. Absent: they cannot, or share nothing worth it.
   */
  routable?(spec: Spec, model: TunableModel): boolean;
  /** Tokens that stand before every text and take positions of it; absent: none. */
  virtualTokens?(spec: Spec): number;
  /** How the base's linear maps are stored while this tuner is trained; absent: as the job's precision says. */
  baseQuantisation?(spec: Spec): { readonly type: 'nf4' | 'fp4'; readonly doubleQuant: boolean };
  /** Trainable numbers. @throws TunefleetError `invalid_input` when the specification does not fit the model */
  countParameters(spec: Spec, model: TunableModel): number;
}
