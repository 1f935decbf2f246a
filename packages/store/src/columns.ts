/** What columns hold as text: instants, and JSON as this program wrote it. Whoever else wrote there, or a disk that lost bits, is not guessed at. */
import { InstaVMError } from '@instavm/wire';

/**
 * @param place table and column, and the row's id, for whoever has to mend it
 * @throws data_incompatible
 */
export function jsonColumn<T>(text: string, place: string, id: string | number): T {
  try {
    return JSON.parse(text) as T;
  } catch (cause) {
    throw new InstaVMError('data_incompatible', `the database is damaged: ${place} of ${id} is no JSON`, {
      cause,
      hint: 'Restore a backup (instavmd restore), or mend or delete that row with sqlite3 while no daemon runs.',
    });
  }
}

export const optionalJsonColumn = <T>(text: string | null, place: string, id: string | number): T | null =>
  text === null ? null : jsonColumn(text, place, id);

export const instant = (text: string | null): Date | null => (text === null ? null : new Date(text));
