import { link, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';

/** The files of one attempt, apart from what the cache holds. */
export interface AttemptFolder {
  /** Empty, whatever was there. @returns the folder the engine writes to */
  create(): Promise<string>;
  /** @returns the folder for the checkpoint to resume from */
  createResume(): Promise<string>;
  link(file: string, as: string): Promise<void>;
  /** One that was uploaded. */
  removeCheckpoint(dir: string): Promise<void>;
  remove(): Promise<void>;
}

export function attemptFolder(dir: string): AttemptFolder {
  const removeAll = (path: string): Promise<void> => rm(path, { recursive: true, force: true });
  return {
    create: async () => {
      await removeAll(dir);
      const outputDir = join(dir, 'output');
      await mkdir(outputDir, { recursive: true });
      return outputDir;
    },
    createResume: async () => {
      const resumeDir = join(dir, 'resume');
      await mkdir(resumeDir);
      return resumeDir;
    },
    link,
    removeCheckpoint: removeAll,
    remove: () => removeAll(dir),
  };
}
