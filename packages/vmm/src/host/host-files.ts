/** What the daemon itself does with files as the backends do. */
export { flush, renameUnlessTaken } from './files.ts';
export { makeOwnedDirectory, removeAbandonedDirectories } from './owned-directories.ts';
export { parseJson } from './parse-json.ts';
export { fateOf, processToken } from './process-token.ts';
export { REMOVED_TEMPLATES, removeTemplateLeftovers, UNPACKED_TEMPLATES } from './template-leftovers.ts';
