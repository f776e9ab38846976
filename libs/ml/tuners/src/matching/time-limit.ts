import { createContext, Script } from 'node:vm';
import { TunefleetError } from '@tunefleet/foundation';

/** Usual patterns take a few milliseconds for all modules of a model. */
const LIMIT_MS = 2000;
const call = new Script('run()');
/** One for all calls: making a context takes milliseconds. */
const context = createContext({ run: null });

/**
 * Runs `match`, which tests users' regular expressions, and gives up when one of them runs away: some patterns take exponential time,
 * and would hold up everything else in the process.
 * @throws TunefleetError `invalid_input`
 */
export function withinTimeLimit<T>(match: () => T, limitMs = LIMIT_MS): T {
  context['run'] = match;
  try {
    return call.runInContext(context, { timeout: limitMs }) as T;
  } catch (error) {
    if ((error as NodeJS.ErrnoException | null)?.code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
    throw new TunefleetError('invalid_input', `the tuner's module patterns took longer than ${limitMs} ms to match; write them without nested repetitions such as "(a+)+", or list the names`, {
      reason: 'invalid_tuner',
      param: 'tuner.target_modules',
    });
  } finally {
    context['run'] = null;
  }
}
