import type { EvalResult } from '@tunefleet/contracts';
import { mcnemarExact, wilsonInterval } from '@tunefleet/ml-evaluation';

/** Right and wrong answers of every candidate on the same rows. */
export class Tally {
  readonly #correct: boolean[][];

  constructor(private readonly models: readonly string[]) {
    this.#correct = models.map(() => []);
  }

  /** @param correct one entry per candidate */
  add(correct: readonly boolean[]): void {
    correct.forEach((value, index) => this.#correct[index]?.push(value));
  }

  get rows(): number {
    return this.#correct[0]?.length ?? 0;
  }

  /** Share of right answers so far, by candidate: `accuracy` for the first, `accuracy_2` and so on for the others. */
  accuracies(): Record<string, number> {
    return Object.fromEntries(this.#correct.map((answers, index) => [index === 0 ? 'accuracy' : `accuracy_${index + 1}`, count(answers) / Math.max(1, answers.length)]));
  }

  candidates(): EvalResult['candidates'] {
    return this.#correct.map((answers, index) => {
      const correct = count(answers);
      return { model: this.models[index] as string, n: answers.length, correct, accuracy: correct / answers.length, interval: wilsonInterval(correct, answers.length) };
    });
  }

  /** First candidate against the last; null with one candidate. */
  comparison(): EvalResult['comparison'] {
    const [first, last] = [this.#correct[0], this.#correct.at(-1)];
    if (first === undefined || last === undefined || first === last) return null;
    const onlyFirstCorrect = count(first.map((value, row) => value && !last[row]));
    const onlyLastCorrect = count(last.map((value, row) => value && !first[row]));
    return { onlyFirstCorrect, onlyLastCorrect, pValue: mcnemarExact(onlyFirstCorrect, onlyLastCorrect) };
  }
}

function count(values: readonly boolean[]): number {
  return values.filter(Boolean).length;
}
