import { hashOf } from './fingerprint.mjs';
import { addonInputs, cachedAddon, ensureAddon, isAddonPlaced } from './native/addon.mjs';
import { ensureLibrary, isLibraryPresent, libraryFolder } from './native/library.mjs';
import { assertSupportedSystem, chooseFlavour, findCompiler } from './native/machine.mjs';
import { TENSORFLOW_VERSION } from './native/pins.mjs';
import { existsSync } from 'node:fs';

/**
 * The engine's native backend: libtensorflow from its Python wheel under tfjs' own addon, compiled here. Nothing of Python is
 * needed afterwards. Optional: where it cannot be had the engine runs on WebAssembly, several times slower.
 */
export const nativeStep = {
  name: 'native',
  title: 'native engine',
  optional: true,
  consequence: 'training will run on the slow WebAssembly backend until then',
  fingerprint() {
    const flavour = chooseFlavour();
    return hashOf(TENSORFLOW_VERSION, flavour, libraryFolder(flavour), ...addonInputs());
  },
  isPresent() {
    const flavour = chooseFlavour();
    if (flavour === 'off') return true;
    const folder = libraryFolder(flavour);
    return isLibraryPresent(folder) && isAddonPlaced(folder);
  },
  async run({ progress }) {
    const flavour = chooseFlavour();
    if (flavour === 'off') return 'switched off by TUNEFLEET_NATIVE';
    assertSupportedSystem();
    // Before the large download, so that a missing compiler does not cost it.
    if (!existsSync(cachedAddon(libraryFolder(flavour)))) await findCompiler();
    const folder = await ensureLibrary(flavour, progress);
    await ensureAddon(folder, progress);
    return `TensorFlow ${TENSORFLOW_VERSION} (${flavour}) in ${folder}`;
  },
};
