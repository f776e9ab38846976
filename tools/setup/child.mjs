import { spawn } from 'node:child_process';
import { constants } from 'node:os';

/**
 * Runs a Node program in the foreground: inherits the terminal, passes signals on and reports how it ended.
 * @returns the exit code a shell would show (128 + signal number when a signal ended it)
 */
export function runNode(nodeArgs, { env = process.env, cwd } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, nodeArgs, { stdio: 'inherit', env, cwd });
    // Ctrl-C reaches the whole foreground group by itself; a plain kill reaches only us. Passing it on twice would count as
    // "at once" for programs that stop gently on the first signal.
    const handlers = {
      SIGINT: () => {
        if (!process.stdin.isTTY) child.kill('SIGINT');
      },
      SIGTERM: () => child.kill('SIGTERM'),
      SIGHUP: () => child.kill('SIGHUP'),
    };
    for (const [signal, handler] of Object.entries(handlers)) process.on(signal, handler);
    child.on('error', reject);
    child.on('exit', (code, signal) => {
      for (const [name, handler] of Object.entries(handlers)) process.removeListener(name, handler);
      resolve(code ?? 128 + (constants.signals[signal] ?? 0));
    });
  });
}
