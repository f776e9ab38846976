import { isAbsolute } from 'node:path';
import { TunefleetError } from '@tunefleet/foundation';

/** `owner/name` or `name`, the hub's own rule: letters, digits, `-`, `_`, `.`, no `..` or `--`. */
const HUB_ID = /^(?=.{1,200}$)(?!.*(?:\.\.|--))[A-Za-z0-9][A-Za-z0-9._-]*(?:\/[A-Za-z0-9][A-Za-z0-9._-]*)?$/;
const REVISION = /^(?=.{1,100}$)(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._/-]*$/;
const COMMIT = /^[0-9a-f]{40}$/;

export type ModelId = { readonly kind: 'repository'; readonly name: string } | { readonly kind: 'folder'; readonly path: string };

/** @throws TunefleetError `invalid_input` for anything that is neither a repository name nor an absolute or `./` path */
export function parseModelId(id: string): ModelId {
  if (isAbsolute(id) || id.startsWith('./') || id.startsWith('../')) return { kind: 'folder', path: id };
  if (!HUB_ID.test(id)) {
    throw new TunefleetError('invalid_input', `"${id.slice(0, 200)}" is not a model name; write owner/name as on the hub, or the absolute path of a model folder`, { reason: 'model_not_found', param: 'model' });
  }
  return { kind: 'repository', name: id };
}

/** @throws TunefleetError `invalid_input` */
export function checkRevision(revision: string): string {
  if (!REVISION.test(revision)) throw new TunefleetError('invalid_input', `"${revision.slice(0, 120)}" is not a revision; write a branch, a tag or a commit hash`, { reason: 'revision_not_found', param: 'model' });
  return revision;
}

/** True for names that never point anywhere else: what is cached under them needs no look at the network. */
export function isPinned(revision: string): boolean {
  return COMMIT.test(revision) || revision.startsWith('mirror-');
}
