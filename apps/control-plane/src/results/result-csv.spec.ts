import { resultCsv } from './result-csv';

test('a row per step, a column per metric, empty where nothing was measured', () => {
  const csv = resultCsv([
    { step: 1, name: 'learning_rate', value: 0.001 },
    { step: 1, name: 'train_loss', value: 2.5 },
    { step: 2, name: 'train_loss', value: 1.25 },
    { step: 2, name: 'valid_loss', value: 3 },
    { step: 3, name: 'a,"b"', value: 1e-7 },
  ]);
  expect(csv).toBe(
    [
      'step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,"a,""b""",learning_rate',
      '1,2.5,,,,,0.001',
      '2,1.25,,3,,,',
      '3,,,,,1e-7,',
      '',
    ].join('\n'),
  );
});

test('without points only the header', () => {
  expect(resultCsv([])).toBe('step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n');
});
