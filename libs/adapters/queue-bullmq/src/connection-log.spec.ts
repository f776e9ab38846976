import { silentLogger, type Logger } from '@tunefleet/foundation';
import { ConnectionLog } from './connection-log';

test('the same error is said once until things work again', () => {
  const said: string[] = [];
  const logger: Logger = {
    ...silentLogger,
    warn: (fields) => said.push((fields as { reason: string }).reason),
    info: () => said.push('works'),
  };
  const log = new ConnectionLog(logger);
  log.recovered();
  for (let i = 0; i < 50; i++) log.failed(Object.assign(new AggregateError([], ''), { code: 'ECONNREFUSED' }));
  log.failed(new Error('going down'));
  log.recovered();
  log.recovered();
  log.failed(new Error('going down'));
  expect(said).toEqual(['ECONNREFUSED', 'going down', 'works', 'going down']);
});
