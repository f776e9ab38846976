import { DEFAULT_RESTART_POLICY as policy, decideRestart, type ChildHistory } from './restart-policy';

const delays = (history: ChildHistory, uptimes: readonly number[]): (number | 'give_up')[] => {
  const seen: (number | 'give_up')[] = [];
  for (const uptime of uptimes) {
    const decision = decideRestart(policy, history, uptime);
    if (decision.kind === 'give_up') return [...seen, 'give_up'];
    seen.push(decision.delayMs);
    history = decision.history;
  }
  return seen;
};

test('a child that was ready is restarted for ever, ever later, up to the bound', () => {
  expect(delays({ failures: 0, everReady: true }, Array<number>(10).fill(100))).toEqual([0, 250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000]);
});

test('a long life starts the count again', () => {
  expect(delays({ failures: 6, everReady: true }, [60_000, 100])).toEqual([0, 250]);
});

test('a child that never got ready is given up', () => {
  expect(delays({ failures: 0, everReady: false }, Array<number>(10).fill(100))).toEqual([0, 250, 500, 1000, 'give_up']);
});
