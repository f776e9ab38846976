import { spawn } from 'node:child_process';

const TAIL_LENGTH = 4_000;

/** A command that ended badly; the message carries the end of its output. */
export class CommandError extends Error {
  constructor(command, outcome, output) {
    super(`\`${command}\` ${outcome}\n${output.trim()}`);
    this.name = 'CommandError';
    this.output = output;
  }
}

/**
 * Runs a program to its end and returns its standard output.
 * @param options.onOutput sees each piece of output as it comes, both streams
 * @throws CommandError when it cannot be started, exits non-zero or runs longer than `timeoutMs`
 */
export function run(command, args, { cwd, env, timeoutMs = 60_000, onOutput = () => {}, input } = {}) {
  const shown = [command, ...args].join(' ');
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, env, stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'] });
    let stdout = '';
    let tail = '';
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    const onData = (text) => {
      tail = (tail + text).slice(-TAIL_LENGTH);
      onOutput(text);
    };
    child.stdout.setEncoding('utf8').on('data', (text) => {
      stdout += text;
      onData(text);
    });
    child.stderr.setEncoding('utf8').on('data', onData);
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(new CommandError(shown, `could not be started: ${error.message}`, tail));
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      if (code === 0) resolve(stdout);
      else if (timedOut) reject(new CommandError(shown, `took longer than ${timeoutMs / 1000} s`, tail));
      else reject(new CommandError(shown, signal ? `was ended by ${signal}` : `exited with ${code}`, tail));
    });
    if (input !== undefined) child.stdin.end(input);
  });
}

/** True when the program exists and answers; never throws. */
export async function answers(command, args) {
  try {
    await run(command, args, { timeoutMs: 20_000 });
    return true;
  } catch {
    return false;
  }
}
