import { totals } from './usage';

const day = (team: string, gpu: number, lost: number) => ({ object: 'usage.day' as const, team, day: '2026-11-25', gpu_seconds: gpu, wasted_gpu_seconds: lost, attempts: 1 });

test('days add up by team, the largest first', () => {
  expect(totals([day('a', 10, 1), day('b', 100, 0), day('a', 20, 2)])).toEqual([day('b', 100, 0), { ...day('a', 30, 3), attempts: 2 }]);
  expect(totals([])).toEqual([]);
});
