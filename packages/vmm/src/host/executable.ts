/** Where a program of the host is. */
import { access, constants, realpath } from 'node:fs/promises';
import { delimiter, join } from 'node:path';

/** @param name a path, or a name on the search path. @returns what links lead to; undefined when there is none that can be run */
export async function findExecutable(name: string): Promise<string | undefined> {
  const places = name.includes('/') ? [''] : (process.env.PATH ?? '').split(delimiter);
  for (const place of places) {
    const path = join(place, name);
    const runs = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (runs) return realpath(path);
  }
  return undefined;
}
