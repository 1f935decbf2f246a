/** Failures to listen, in words that name what to change. */
import { InstaVMError } from '@instavm/wire';

const TAKEN = ['EADDRINUSE', 'EACCES', 'EADDRNOTAVAIL'];

export type ListenAddress = {
  readonly host: string;
  readonly port: number;
  /** What the operator may set, and to what. */
  readonly setting: string;
};

/** @throws conflict when one of the addresses is taken, forbidden, or none of this host */
export async function listening<T>(
  started: Promise<T>,
  what: string,
  ...addresses: readonly [ListenAddress, ...ListenAddress[]]
): Promise<T> {
  try {
    return await started;
  } catch (error) {
    const { code = '', port: failed } = error as NodeJS.ErrnoException & { port?: number };
    if (!TAKEN.includes(code)) throw error;
    const { host, port, setting } = addresses.find((address) => address.port === failed) ?? addresses[0];
    throw new InstaVMError('conflict', `cannot ${what} on ${host}:${port} (${code})`, {
      cause: error,
      hint: `Stop what listens there, or set ${setting}.`,
    });
  }
}
