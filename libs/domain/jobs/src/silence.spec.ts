import fc from 'fast-check';
import { ENGINE_SILENCE_MS, judgeSilence, silenceMessage, silenceRule, stuckMark } from './silence';

const rule = silenceRule(ENGINE_SILENCE_MS);

test.each<[number, string, number | null]>([
  [0, 'goes_on', 600_000],
  [599_999, 'goes_on', 1],
  [600_000, 'stuck', 1_200_000],
  [1_799_999, 'stuck', 1],
  [1_800_000, 'give_up', null],
  [9_000_000, 'give_up', null],
])('silent for %d ms: %s', (silentMs, verdict, nextInMs) => expect(judgeSilence(silentMs, rule)).toEqual({ verdict, nextInMs }));

test('property: looking again when told to, and not before, sees every verdict once', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 100_000_000 }), (giveUpMs) => {
      const seen: string[] = [];
      for (let silentMs: number | null = 0; silentMs !== null; ) {
        const { verdict, nextInMs } = judgeSilence(silentMs, silenceRule(giveUpMs));
        seen.push(verdict);
        if (nextInMs !== null && nextInMs > 1) expect(judgeSilence(silentMs + nextInMs - 1, silenceRule(giveUpMs)).verdict).toBe(verdict);
        silentMs = nextInMs === null ? null : silentMs + nextInMs;
      }
      expect(seen).toEqual(giveUpMs === 1 ? ['goes_on', 'give_up'] : ['goes_on', 'stuck', 'give_up']);
    }),
  );
});

test.each([
  [null, 'nothing heard from the engine for 600 s since it was given the job'],
  ['load 40 %', 'nothing heard from the engine for 600 s while it loaded the base model (40 %)'],
  ['tokenise 1000 rows', 'nothing heard from the engine for 600 s while it tokenised the data (1000 rows)'],
  ['train', 'nothing heard from the engine for 600 s while it trained'],
  ['compile', 'nothing heard from the engine for 600 s in its phase "compile"'],
])('in words: %s', (phase, message) => expect(silenceMessage(600_400, phase)).toBe(message));

test.each([
  [[], null],
  [[null, 'stuck', { code: 'oom' }], null],
  [[{ code: 'stuck' }, null], true],
  [[{ code: 'stuck' }, { code: 'unstuck' }], false],
])('logs with %j: stuck %s', (logs, stuck) => expect(stuckMark(logs)).toBe(stuck));
