/**
 * Descriptors that whoever started this process left open in it, and that every program started here would get too. Node closes what it opens
 * itself to its children, and of what it finds open only the first sixteen and what follows them without a gap.
 */
import { readdirSync, readFileSync } from 'node:fs';

/** `O_CLOEXEC`, as the kernel tells it (proc(5), fdinfo). */
const CLOSED_TO_CHILDREN = 0o2000000;
const STANDARD = 2;

let found: readonly number[] | undefined;

/** They are there from the beginning, so they are looked for once. */
export function strayDescriptors(): readonly number[] {
  found ??= readdirSync('/proc/self/fdinfo').map(Number).filter(isStray);
  return found;
}

function isStray(descriptor: number): boolean {
  if (descriptor <= STANDARD) return false;
  try {
    const info = readFileSync(`/proc/self/fdinfo/${descriptor}`, 'utf8');
    const flags = Number.parseInt(/^flags:\s*(\d+)/m.exec(info)?.[1] ?? '', 8);
    return (flags & CLOSED_TO_CHILDREN) === 0;
  } catch {
    // The one that the directory was read with.
    return false;
  }
}
