/** Failures to listen, in words that name what to change. */
import { InstaVMError } from '@instavm/wire';

const TAKEN = ['EADDRINUSE', 'EACCES', 'EADDRNOTAVAIL'];

/** @throws conflict when the address that `setting` gives is taken, forbidden, or none of this host */
export async function listening<T>(
  started: Promise<T>,
  { what, host, port, setting }: { what: string; host: string; port: number; setting: string },
): Promise<T> {
  try {
    return await started;
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (!TAKEN.includes(code)) throw error;
    throw new InstaVMError('conflict', `cannot ${what} on ${host}:${port} (${code})`, {
      cause: error,
      hint: `Stop what listens there, or set ${setting}.`,
    });
  }
}
