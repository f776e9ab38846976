import { existsSync, readdirSync } from 'node:fs';
import { answers } from '../exec.mjs';

/** Why the native engine cannot be had here; the message says what to install. */
export class NativeUnavailableError extends Error {}

/**
 * 'cuda' when an NVIDIA card and its driver are visible, else 'cpu'; `TUNEFLEET_NATIVE` (auto, cpu, cuda, off) overrides.
 * Looks at files only, because every command asks.
 */
export function chooseFlavour(env = process.env) {
  const wish = env.TUNEFLEET_NATIVE ?? 'auto';
  if (!['auto', 'cpu', 'cuda', 'off'].includes(wish)) {
    throw new Error(`TUNEFLEET_NATIVE is "${wish}"; use auto, cpu, cuda or off`);
  }
  if (wish !== 'auto') return wish;
  return process.arch === 'x64' && hasNvidiaCard() ? 'cuda' : 'cpu';
}

function hasNvidiaCard() {
  if (existsSync('/usr/lib/wsl/lib/libcuda.so.1')) return true;
  try {
    return readdirSync('/dev').some((name) => /^nvidia\d+$/.test(name));
  } catch {
    return false;
  }
}

/** @throws NativeUnavailableError where no TensorFlow wheel exists for this system */
export function assertSupportedSystem() {
  const glibc = process.report?.getReport().header.glibcVersionRuntime;
  if (process.platform !== 'linux' || !['x64', 'arm64'].includes(process.arch)) {
    throw new NativeUnavailableError(`there is no build for ${process.platform}-${process.arch}; use Linux on x64 or arm64`);
  }
  const [major = 0, minor = 0] = (glibc ?? '').split('.').map(Number);
  if (major < 2 || (major === 2 && minor < 27)) {
    throw new NativeUnavailableError(
      `it needs glibc 2.27 or newer, found ${glibc ?? 'another C library'}; use a Debian, Ubuntu or RHEL based system`,
    );
  }
}

/** @returns the first C++ compiler that answers: `CXX`, c++, g++, clang++ */
export async function findCompiler(env = process.env) {
  const candidates = env.CXX ? [env.CXX] : ['c++', 'g++', 'clang++'];
  for (const candidate of candidates) {
    if (await answers(candidate, ['--version'])) return candidate;
  }
  throw new NativeUnavailableError(
    env.CXX ? `CXX is "${env.CXX}", which does not run` : 'no C++ compiler; install one (Debian, Ubuntu: apt-get install g++)',
  );
}

/** @returns the first Python 3 that answers: `PYTHON`, python3, python */
export async function findPython(env = process.env) {
  const candidates = env.PYTHON ? [env.PYTHON] : ['python3', 'python'];
  for (const candidate of candidates) {
    if (await answers(candidate, ['-c', 'import sys, zipfile; sys.exit(sys.version_info < (3, 8))'])) return candidate;
  }
  throw new NativeUnavailableError('no Python 3.8 or newer; install it (Debian, Ubuntu: apt-get install python3 python3-pip)');
}

/** @throws NativeUnavailableError when Python has no pip */
export async function assertPip(python) {
  if (await answers(python, ['-m', 'pip', '--version'])) return;
  throw new NativeUnavailableError(
    'Python has no pip to fetch TensorFlow with; install it (Debian, Ubuntu: apt-get install python3-pip) or name a wheel file in TUNEFLEET_TENSORFLOW_WHEEL',
  );
}
