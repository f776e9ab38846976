import { sha256Hex } from '@tunefleet/foundation';
import { MAIL_GROUPS, readSpamAssassinCorpus, type CorpusMail, type MailGroup } from './corpus';
import { readMail, shorten } from './mail-text';
import { nearDuplicateGroups, normaliseForComparison } from './near-duplicates';

export type MailLabel = 'spam' | 'ham';

export interface MailExample {
  readonly id: string;
  readonly group: MailGroup;
  readonly label: MailLabel;
  readonly messages: readonly [{ readonly role: 'system'; readonly content: string }, { readonly role: 'user'; readonly content: string }, { readonly role: 'assistant'; readonly content: MailLabel }];
}

export interface MailDataOptions {
  /** Training examples, half of each label. Default 600. */
  readonly train?: number;
  /** Held-out examples, half of each label. Default 400. */
  readonly test?: number;
  /** Most characters of the subject line. Default 80. */
  readonly subjectCharacters?: number;
  /** Most characters of the body; four are about one token. Default 240. */
  readonly bodyCharacters?: number;
}

export interface MailData {
  readonly train: readonly MailExample[];
  readonly test: readonly MailExample[];
  /** What was left after each step, for the record. */
  readonly counts: { readonly mails: number; readonly readable: number; readonly distinct: number; readonly spam: number; readonly ham: number };
}

export const MAIL_INSTRUCTION = 'Is this e-mail spam or ham? Answer with one word.';
/** Bodies shorter than this (attachments only, pictures only) tell nothing. */
const BODY_CHARACTERS_MIN = 40;
/** Of 100 hash values, the ones that mean "held out". */
const TEST_SHARE = 25;

/**
 * Chat examples "is this mail spam?" from the SpamAssassin corpus; the same options always give the same examples.
 * Near-duplicates are removed over the whole corpus first, then each mail falls into one part by the hash of its normalised text, so no mail
 * nor a copy of it is in both parts. Both parts are balanced; mails are taken in the order of their hashes, labels alternating.
 */
export function spamAssassinExamples(options: MailDataOptions = {}): MailData {
  const { train = 600, test = 400, subjectCharacters = 80, bodyCharacters = 240 } = options;
  const corpus = readSpamAssassinCorpus();
  const readable = corpus.map((mail) => ({ mail, ...readMail(mail.raw) })).filter(isUsable);
  const texts = readable.map(({ subject, body }) => `Subject: ${shorten(subject, subjectCharacters)}\n\n${shorten(body, bodyCharacters)}`);
  const groups = nearDuplicateGroups(texts);
  const distinct = readable.flatMap(({ mail }, index) => (groups[index] === index ? [toExample(mail, texts[index] as string)] : []));
  distinct.sort((a, b) => (a.hash < b.hash ? -1 : 1));
  const part = (heldOut: boolean): readonly MailExample[] => distinct.filter(({ hash }) => parseInt(hash.slice(0, 8), 16) % 100 < TEST_SHARE === heldOut).map(({ example }) => example);
  const count = (label: MailLabel): number => distinct.filter(({ example }) => example.label === label).length;
  return {
    train: balanced(part(false), train),
    test: balanced(part(true), test),
    counts: { mails: corpus.length, readable: readable.length, distinct: distinct.length, spam: count('spam'), ham: count('ham') },
  };
}

/** Texts in a charset we do not decode come out as signs, not letters; explicit offers have no place in an example that is shown on a screen. */
function isUsable({ subject, body }: { readonly subject: string; readonly body: string }): boolean {
  const start = body.slice(0, 240);
  const letters = start.replace(/[^A-Za-z]/g, '').length;
  const readable = letters >= 0.6 * start.replace(/\s/g, '').length;
  return readable && normaliseForComparison(body).length >= BODY_CHARACTERS_MIN && !EXPLICIT.test(`${subject} ${body}`);
}

const EXPLICIT = /\b(porn\w*|xxx+|sex\w*|pussy|cum|cock|fist\w*|nude\w*|naked|teens?|hardcore|incest|rape\w*|slut\w*|fuck\w*|penis|viagra|erect\w*|orgasm\w*|horny|amateurs?)\b/i;

function toExample(mail: CorpusMail, text: string): { hash: string; example: MailExample } {
  const label = MAIL_GROUPS[mail.group];
  return {
    hash: sha256Hex(normaliseForComparison(text)),
    example: {
      id: mail.id,
      group: mail.group,
      label,
      messages: [
        { role: 'system', content: MAIL_INSTRUCTION },
        { role: 'user', content: text },
        { role: 'assistant', content: label },
      ],
    },
  };
}

/** Half of each label, alternating; fewer when a label runs out. */
function balanced(examples: readonly MailExample[], size: number): MailExample[] {
  const of = (label: MailLabel): MailExample[] => examples.filter((example) => example.label === label);
  const [spam, ham] = [of('spam'), of('ham')];
  const half = Math.min(Math.floor(size / 2), spam.length, ham.length);
  return Array.from({ length: half }, (_, index) => [spam[index] as MailExample, ham[index] as MailExample]).flat();
}

/** The examples as a training file: one `{"messages": [...]}` per line. */
export function toJsonl(examples: readonly MailExample[]): string {
  return examples.map(({ messages }) => `${JSON.stringify({ messages })}\n`).join('');
}
