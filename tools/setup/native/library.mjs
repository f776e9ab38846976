import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { run } from '../exec.mjs';
import { withLock } from '../lock.mjs';
import { cacheDir } from '../paths.mjs';
import { assertPip, findPython, NativeUnavailableError } from './machine.mjs';
import { TENSORFLOW_VERSION, wheelsFor } from './pins.mjs';

const DOWNLOAD_TIMEOUT_MS = 60 * 60_000;

/** Folder in the cache for one flavour: `tensorflow/` (libraries, a few headers), `nvidia/` (CUDA flavour) and `addon/`. */
export function libraryFolder(flavour, env = process.env) {
  const machine = process.arch === 'x64' ? 'x86_64' : 'aarch64';
  return join(cacheDir(env), 'native', `tensorflow-${TENSORFLOW_VERSION}-${flavour}-${machine}`);
}

/** A folder unpacked before there were kernels lacks headers that they are compiled with; it counts as absent. */
export function isLibraryPresent(folder) {
  return existsSync(join(folder, 'complete')) && existsSync(join(folder, 'tensorflow', 'include', 'tsl', 'platform', 'platform.h'));
}

/**
 * Puts libtensorflow into the cache unless it is there: fetches the pinned wheels with pip, or takes the file named by
 * `TUNEFLEET_TENSORFLOW_WHEEL`, keeps the libraries and the headers the addon needs, and deletes the wheels.
 * @throws NativeUnavailableError when it cannot be fetched
 */
export async function ensureLibrary(flavour, progress, env = process.env) {
  const folder = libraryFolder(flavour, env);
  if (isLibraryPresent(folder)) return folder;
  mkdirSync(join(folder, '..'), { recursive: true });
  await withLock(`${folder}.lock`, async () => {
    if (isLibraryPresent(folder)) return;
    const work = `${folder}.new`;
    rmSync(work, { recursive: true, force: true });
    rmSync(folder, { recursive: true, force: true });
    try {
      const python = await findPython(env);
      const wheels = await obtainWheels(python, flavour, join(work, 'wheels'), progress, env);
      await extract(python, wheels, work, progress);
      rmSync(join(work, 'wheels'), { recursive: true, force: true });
      writeFileSync(join(work, 'complete'), `${wheels.map((file) => basename(file)).join('\n')}\n`);
      renameSync(work, folder);
    } catch (error) {
      rmSync(work, { recursive: true, force: true });
      throw error;
    }
  });
  return folder;
}

/** @returns paths of the wheel files */
async function obtainWheels(python, flavour, target, progress, env) {
  const own = env.TUNEFLEET_TENSORFLOW_WHEEL ? resolve(env.TUNEFLEET_TENSORFLOW_WHEEL) : undefined;
  if (own !== undefined) assertUsableWheel(own, flavour);
  const wanted = wheelsFor(flavour, process.arch, { withoutTensorflow: own !== undefined });
  if (wanted === undefined) {
    throw new NativeUnavailableError(`there is no ${flavour} build for ${process.arch}; set TUNEFLEET_NATIVE=cpu`);
  }
  if (wanted.requirements.length === 0) return [own];
  await assertPip(python);
  await download(python, wanted, target, progress, env);
  const fetched = readdirSync(target).filter((name) => name.endsWith('.whl')).map((name) => join(target, name));
  return own === undefined ? fetched : [own, ...fetched];
}

function assertUsableWheel(file, flavour) {
  if (!existsSync(file)) throw new NativeUnavailableError(`TUNEFLEET_TENSORFLOW_WHEEL names ${file}, which does not exist`);
  const machine = process.arch === 'x64' ? 'x86_64' : 'aarch64';
  const pattern = new RegExp(`^tensorflow(_cpu)?-${TENSORFLOW_VERSION.replaceAll('.', '\\.')}-.*manylinux.*_${machine}\\.whl$`);
  const match = pattern.exec(basename(file));
  if (match === null) {
    throw new NativeUnavailableError(
      `TUNEFLEET_TENSORFLOW_WHEEL names ${basename(file)}; a tensorflow or tensorflow_cpu ${TENSORFLOW_VERSION} manylinux wheel for ${machine} is needed`,
    );
  }
  if (flavour === 'cuda' && match[1] !== undefined) {
    throw new NativeUnavailableError(
      `TUNEFLEET_TENSORFLOW_WHEEL names a wheel without CUDA; give the tensorflow wheel, or set TUNEFLEET_NATIVE=cpu`,
    );
  }
}

async function download(python, wanted, target, progress, env) {
  const temporary = join(target, 'tmp');
  mkdirSync(temporary, { recursive: true });
  const requirements = join(temporary, 'requirements.txt');
  writeFileSync(requirements, `${wanted.requirements.join('\n')}\n`);
  progress.announce(`downloading TensorFlow ${TENSORFLOW_VERSION}${wanted.bytes ? ` (${mebibytes(wanted.bytes)} MiB)` : ''}, once per machine`);
  const poll = setInterval(() => {
    const bytes = bytesBelow(target);
    progress.update(`${mebibytes(bytes)} MiB`, wanted.bytes === undefined ? undefined : Math.min(1, bytes / wanted.bytes));
  }, 250);
  try {
    await run(
      python,
      // No pip cache: it would keep a second copy of what is unpacked below.
      ['-m', 'pip', 'download', '--no-deps', '--only-binary', ':all:', '--require-hashes', '--no-cache-dir', '--progress-bar', 'off']
        .concat(['--disable-pip-version-check', '--dest', target, '-r', requirements], wanted.pipTags),
      { timeoutMs: DOWNLOAD_TIMEOUT_MS, env: { ...env, TMPDIR: temporary } },
    );
  } catch (error) {
    const reason = /^ERROR: .*$/m.exec(error.output ?? '')?.[0] ?? error.message;
    throw new NativeUnavailableError(
      `pip could not fetch it: ${reason}; check the connection or pip's index settings, or name a wheel file in TUNEFLEET_TENSORFLOW_WHEEL`,
    );
  } finally {
    clearInterval(poll);
    rmSync(temporary, { recursive: true, force: true });
  }
}

/** Unpacks only what the addon and the run time need; wheels hold much more. */
const EXTRACT_PY = `
import os, re, shutil, stat, sys, zipfile
target, wheels = sys.argv[1], sys.argv[2:]
wanted = re.compile(
    r"tensorflow/libtensorflow_(cc|framework)\\.so\\.2$"
    r"|tensorflow/include/(tensorflow/c/|tensorflow/core/platform/ctstring|tsl/platform/ctstring|xla/tsl/c/).*\\.h$"
    r"|tensorflow/include/(tsl/platform/platform|tensorflow/core/common_runtime/next_pluggable_device/c/.*)\\.h$"
    r"|tensorflow/include/LICENSE$|[^/]+\\.dist-info/(licenses/)?[^/]*LICENSE[^/]*$"
    r"|nvidia/[^/]+/(lib|bin)/[^/]+$|nvidia/cuda_nvcc/nvvm/(bin|libdevice)/[^/]+$")
found = set()
for wheel in wheels:
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            if info.is_dir() or not wanted.match(info.filename) or info.filename.endswith(".a"):
                continue
            path = os.path.join(target, *info.filename.split("/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with archive.open(info) as source, open(path, "wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 22)
            if "/bin/" in info.filename:
                os.chmod(path, 0o755)
            found.add(info.filename)
for name in ("cc", "framework"):
    if f"tensorflow/libtensorflow_{name}.so.2" not in found:
        sys.exit(f"no libtensorflow_{name}.so.2 in {', '.join(wheels)}")
`;

async function extract(python, wheels, target, progress) {
  const poll = setInterval(() => progress.update(`unpacking, ${mebibytes(bytesBelow(join(target, 'tensorflow')))} MiB`), 250);
  try {
    await run(python, ['-', target, ...wheels], { input: EXTRACT_PY, timeoutMs: 20 * 60_000 });
  } finally {
    clearInterval(poll);
  }
}

function bytesBelow(folder) {
  let bytes = 0;
  let names = [];
  try {
    names = readdirSync(folder, { recursive: true });
  } catch {
    // Not made yet, or pip is just moving a file away.
  }
  for (const name of names) {
    try {
      const info = statSync(join(folder, name));
      if (info.isFile()) bytes += info.size;
    } catch {
      // Gone between listing and looking.
    }
  }
  return bytes;
}

function mebibytes(bytes) {
  return Math.round(bytes / 2 ** 20);
}
