import { spamAssassinExamples, toJsonl, type MailExample } from '@tunefleet/ml-data/specs';
import { recipe } from './recipe';

export interface QuickstartData {
  readonly trainRows: number;
  readonly testRows: number;
  /** Training files: one `{"messages": [...]}` a line. */
  readonly train: string;
  readonly test: string;
  /** Text of the mail in a row of the test file, counted from 1. */
  mailOfTestRow(row: number): string | null;
}

/** The recipe's mails as two files. The same at every run; takes some seconds, during which nothing else runs in this process. */
export function quickstartData(): QuickstartData {
  const { train, test } = spamAssassinExamples(recipe.data.examples);
  return {
    trainRows: train.length,
    testRows: test.length,
    train: toJsonl(train),
    test: toJsonl(test),
    mailOfTestRow: (row) => mailText(test[row - 1]),
  };
}

function mailText(example: MailExample | undefined): string | null {
  return example?.messages.find((message) => message.role === 'user')?.content ?? null;
}
