import { changesOf } from './job-controls';

test('fields are JSON where they can be, and dots go inside', () => {
  expect(changesOf({ seed: '7', suffix: 'mails', 'hyperparameters.n_epochs': '2', 'hyperparameters.batch_size': 'auto', after: '["a"]' })).toEqual({
    seed: 7,
    suffix: 'mails',
    hyperparameters: { n_epochs: 2, batch_size: 'auto' },
    after: ['a'],
  });
});

test('a field cannot be a value and have parts', () => {
  expect(() => changesOf({ seed: '7', 'seed.x': '1' })).toThrow('seed has a value already');
});
