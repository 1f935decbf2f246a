/** A lock that one process holds on a path, and that the kernel takes back when the process ends, however it ends. */
import { DatabaseSync } from 'node:sqlite';

/** SQLITE_BUSY (sqlite3.h). */
const BUSY = 5;

/**
 * Rests on the file locks of SQLite, since Node has none of its own.
 * @returns how to let go, or undefined while another holds it
 */
export function takeExclusiveLock(path: string): (() => void) | undefined {
  const file = new DatabaseSync(path);
  try {
    file.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE');
  } catch (error) {
    file.close();
    if ((error as { errcode?: number }).errcode === BUSY) return undefined;
    throw error;
  }
  return () => {
    if (file.isOpen) file.close();
  };
}
