/** Places in the repository that several commands name. */
import { resolve } from 'node:path';

export const ROOT = resolve(import.meta.dirname, '../..');
export const AGENT_DIRECTORY = resolve(ROOT, 'guest/agent');
/** Ignored by git: stamps, locks and Python environments of this clone. */
export const LOCAL_CACHE = resolve(ROOT, '.cache');
