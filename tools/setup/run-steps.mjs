import { clearStamp, readStamp, writeStamp } from './fingerprint.mjs';
import { withLock } from './lock.mjs';
import { lockFile } from './paths.mjs';

/** An optional step that failed is not tried again by every command; a direct `npm run setup` tries at once. */
const RETRY_OPTIONAL_AFTER_MS = 60 * 60_000;

/**
 * Brings the checkout up to date: runs those steps whose inputs changed or whose results are gone, in order, one process at a time.
 * A step is {name, title, optional?, consequence?, fingerprint(), isPresent(), run({progress}) -> what was done}.
 * @param options.retryFailed try optional steps again that failed a moment ago
 * @returns names of the steps that did something
 * @throws Error naming the step that failed, unless it is optional
 */
export async function runSteps(steps, reporter, { retryFailed = false } = {}) {
  if (steps.every((step) => isUpToDate(step) || isResting(step, retryFailed))) {
    for (const step of steps) warnOfRest(step, reporter);
    return [];
  }
  return withLock(lockFile, () => runInOrder(steps, reporter, retryFailed), {
    onWait: (pid) => reporter.note(`waiting for another set-up (process ${pid}) to finish`),
  });
}

async function runInOrder(steps, reporter, retryFailed) {
  const ran = [];
  for (const step of steps) {
    if (isUpToDate(step)) continue;
    if (isResting(step, retryFailed)) {
      warnOfRest(step, reporter);
      continue;
    }
    const progress = reporter.step(step.title);
    try {
      const outcome = await step.run({ progress });
      writeStamp(step.name, step.fingerprint());
      clearStamp(failureName(step));
      progress.done(outcome);
    } catch (error) {
      clearStamp(step.name);
      if (!step.optional) {
        progress.fail(error.message);
        throw new Error(`set-up stopped at "${step.title}"`, { cause: error });
      }
      const message = `${error.message}; ${step.consequence}`;
      writeStamp(failureName(step), JSON.stringify({ fingerprint: step.fingerprint(), at: Date.now(), message }));
      progress.warn(message);
    }
    ran.push(step.name);
  }
  return ran;
}

function isUpToDate(step) {
  try {
    return readStamp(step.name) === step.fingerprint() && step.isPresent();
  } catch (error) {
    // An input is missing (before the first `npm ci`, say): the step itself will say what is wrong, if anything is.
    if (error.code === 'ENOENT') return false;
    throw error;
  }
}

const failureName = (step) => `${step.name}.failed`;

function readFailure(step) {
  const stamp = step.optional ? readStamp(failureName(step)) : undefined;
  return stamp === undefined ? undefined : JSON.parse(stamp);
}

function isResting(step, retryFailed) {
  const failure = retryFailed ? undefined : readFailure(step);
  return failure !== undefined && failure.fingerprint === step.fingerprint() && Date.now() - failure.at < RETRY_OPTIONAL_AFTER_MS;
}

function warnOfRest(step, reporter) {
  const failure = readFailure(step);
  if (failure !== undefined && !isUpToDate(step)) {
    reporter.step(step.title).warn(`${failure.message}. \`npm run setup\` tries again`);
  }
}

