import { bundlesStep } from '../build/bundles.mjs';
import { createReporter } from './progress.mjs';
import { runSteps } from './run-steps.mjs';
import { prismaStep, protoStep } from './step-generate.mjs';
import { nativeStep } from './step-native.mjs';
import { packagesStep, postgresStep } from './step-packages.mjs';

const STEPS = [packagesStep, postgresStep, prismaStep, protoStep, nativeStep, bundlesStep];

export const STEP_NAMES = STEPS.map((step) => step.name);

const OLDEST_NODE = [20, 19];

/**
 * Makes the checkout ready to run. Safe to call at any time and from several processes; does nothing when all is up to date.
 * @param options.only names of steps; all when left out
 * @param options.retryFailed try optional steps again that failed a moment ago
 */
export async function setup({ only, quiet = false, retryFailed = false } = {}) {
  assertNodeVersion();
  const unknown = (only ?? []).filter((name) => !STEP_NAMES.includes(name));
  if (unknown.length > 0) throw new Error(`no set-up step "${unknown.join(', ')}"; there are ${STEP_NAMES.join(', ')}`);
  const steps = only === undefined ? STEPS : STEPS.filter((step) => only.includes(step.name));
  return runSteps(steps, createReporter({ quiet }), { retryFailed });
}

/** Runs set-up for another command: a failure is one plain message and exit code 1, not a stack trace. */
export async function setupOrExit(options) {
  try {
    return await setup(options);
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  }
}

function assertNodeVersion(version = process.versions.node) {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [oldestMajor, oldestMinor] = OLDEST_NODE;
  if (major < oldestMajor || (major === oldestMajor && minor < oldestMinor)) {
    throw new Error(`Node.js ${OLDEST_NODE.join('.')} or newer is needed, this is ${version}; get it from your package manager or nodejs.org`);
  }
}
