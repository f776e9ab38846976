import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { run } from '../exec.mjs';
import { hashOfTree, hashOf } from '../fingerprint.mjs';
import { root } from '../paths.mjs';
import { findCompiler } from './machine.mjs';
import { TENSORFLOW_VERSION } from './pins.mjs';

const NAPI_VERSION = 8;
const tfjsPackage = join(root, 'node_modules', '@tensorflow', 'tfjs-node-gpu');
const napiHeaders = join(root, 'node_modules', 'node-api-headers');
const placedAddon = join(tfjsPackage, 'lib', `napi-v${NAPI_VERSION}`, 'tfjs_binding.node');

/** Ops of our own for the processor, registered when the addon is loaded. */
const kernelsFolder = join(root, 'libs', 'ml', 'tensor', 'kernels');

const FLAGS = ['-std=c++17', '-O2', '-fPIC', '-shared', `-DNAPI_VERSION=${NAPI_VERSION}`, '-w'];
const KERNEL_FLAGS = ['-std=c++17', '-O3', '-ffp-contract=fast', '-fPIC'];
/** What nearly every x86 processor since 2013 has; `library.cc`, compiled without, looks whether this one does. */
const VECTOR_FLAGS = process.arch === 'x64' ? ['-mavx2', '-mfma'] : [];
const WITHOUT_VECTORS = new Set(['library.cc']);

/** Changes whenever another addon would come out: its sources, headers or flags. Node-API keeps it valid across Node versions. */
export function addonKey() {
  const sources = [join(tfjsPackage, 'binding'), join(napiHeaders, 'package.json'), kernelsFolder];
  return hashOf(hashOfTree(sources), ...FLAGS, ...KERNEL_FLAGS, ...VECTOR_FLAGS).slice(0, 16);
}

/** Where the addon of this checkout lies in the cache, beside the library it is linked to. */
export function cachedAddon(folder) {
  return join(folder, 'addon', `napi-v${NAPI_VERSION}-${addonKey()}`, 'tfjs_binding.node');
}

/** True when tfjs would load the addon that belongs to `folder`. */
export function isAddonPlaced(folder) {
  return existsSync(placedAddon) && realpathSync(placedAddon) === safeRealpath(cachedAddon(folder));
}

/** Compiles the addon against the library unless the cache has it, checks that it loads, and links it to where tfjs looks. */
export async function ensureAddon(folder, progress, env = process.env) {
  const addon = cachedAddon(folder);
  if (!existsSync(addon)) {
    const compiler = await findCompiler(env);
    progress.update(`compiling the addon with ${compiler}`);
    mkdirSync(dirname(addon), { recursive: true });
    const temporary = `${addon}.${process.pid}.tmp.node`;
    try {
      await compile(compiler, folder, temporary, env);
      await assertLoads(temporary, env);
      renameSync(temporary, addon);
    } finally {
      rmSync(temporary, { force: true });
    }
  }
  mkdirSync(dirname(placedAddon), { recursive: true });
  // A link, so that the loader resolves $ORIGIN to the cache and one copy of the library serves every checkout.
  const link = `${placedAddon}.${process.pid}.tmp`;
  symlinkSync(addon, link);
  renameSync(link, placedAddon);
}

async function compile(compiler, folder, output, env) {
  const library = join(folder, 'tensorflow');
  const objectsFolder = mkdtempSync(join(tmpdir(), 'tunefleet-kernels-'));
  try {
    const objects = await compileKernels(compiler, join(library, 'include'), objectsFolder, env);
    await compileAddon(compiler, library, objects, output, env);
  } finally {
    rmSync(objectsFolder, { recursive: true, force: true });
  }
}

/** @returns paths of the object files */
async function compileKernels(compiler, include, objectsFolder, env) {
  const sources = readdirSync(kernelsFolder).filter((name) => name.endsWith('.cc'));
  return await Promise.all(
    sources.map(async (name) => {
      const object = join(objectsFolder, `${basename(name, '.cc')}.o`);
      const vectors = WITHOUT_VECTORS.has(name) ? [] : VECTOR_FLAGS;
      await run(compiler, [...KERNEL_FLAGS, ...vectors, `-I${include}`, '-c', join(kernelsFolder, name), '-o', object], { timeoutMs: 10 * 60_000, env });
      return object;
    }),
  );
}

async function compileAddon(compiler, library, objects, output, env) {
  const sources = ['tfjs_backend.cc', 'tfjs_binding.cc'].map((name) => join(tfjsPackage, 'binding', name));
  const includes = [join(tfjsPackage, 'binding'), join(napiHeaders, 'include'), join(library, 'include')];
  await run(
    compiler,
    [
      ...FLAGS,
      ...includes.map((path) => `-I${path}`),
      ...sources,
      ...objects,
      ...['-o', output, `-L${library}`, '-l:libtensorflow_cc.so.2', '-l:libtensorflow_framework.so.2'],
      '-Wl,-rpath,$ORIGIN/../../tensorflow',
    ],
    { timeoutMs: 10 * 60_000, env },
  );
}

async function assertLoads(addon, env) {
  const script = 'process.stdout.write(require(process.argv[1]).TF_Version)';
  const version = await run(process.execPath, ['-e', script, addon], {
    timeoutMs: 120_000,
    env: { ...env, TF_CPP_MIN_LOG_LEVEL: '3', NODE_OPTIONS: '' },
  });
  if (version.trim() !== TENSORFLOW_VERSION) {
    throw new Error(`the addon loaded TensorFlow ${version.trim()}, expected ${TENSORFLOW_VERSION}`);
  }
}

function safeRealpath(path) {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

/** Versions whose change makes another addon; part of the step's fingerprint. */
export function addonInputs() {
  return [join(tfjsPackage, 'package.json'), join(napiHeaders, 'package.json')].map((file) =>
    existsSync(file) ? readFileSync(file, 'utf8') : '',
  );
}
