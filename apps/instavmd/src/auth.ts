/** API keys: from a header, and from the body of the one route of the contract that puts it there. */
import type { Account, Accounts } from '@instavm/store';
import { InstaVMError } from '@instavm/wire';

/** @throws unauthenticated, the same for a missing, malformed, unknown and revoked key */
export async function authenticate(accounts: Accounts, key: string | string[] | undefined): Promise<Account> {
  const account = await accountOf(accounts, key);
  if (account === undefined) throw new InstaVMError('unauthenticated', 'the API key is missing or not valid');
  return account;
}

/** @returns undefined where `authenticate` throws */
export async function accountOf(accounts: Accounts, key: string | string[] | undefined): Promise<Account | undefined> {
  return typeof key === 'string' && key.length > 0 && key.length < 256 ? accounts.findByKey(key) : undefined;
}
