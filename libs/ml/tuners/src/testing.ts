import type { BindableModel, StartContext } from './tuner';

/** For tuners whose start values need no text. */
export function startWith(model: BindableModel): StartContext {
  return {
    model,
    tokenise(text) {
      throw new Error(`"${text}" would have to be tokenised`);
    },
  };
}
