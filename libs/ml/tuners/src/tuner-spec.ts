import type { TunableModel } from './tuner';

/** The TensorFlow-free half of a tuner. */
export interface TunerSpecHalf<Spec> {
  /** Name for people. */
  readonly title: string;
  /** @param fields a user's fields, `kind` included @throws TunefleetError `invalid_input` with param `tuner.<field>` */
  parse(fields: Readonly<Record<string, unknown>>): Spec;
  /** Trainable numbers. @throws TunefleetError `invalid_input` when the specification does not fit the model */
  countParameters(spec: Spec, model: TunableModel): number;
}
