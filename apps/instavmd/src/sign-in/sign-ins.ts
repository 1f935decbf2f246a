/** Browsers that are signed in to an account: how they come to be, whose they are, and how they end. */
import { randomBytes } from 'node:crypto';
import type { AccountId } from '@instavm/core';
import type { Account, Accounts } from '@instavm/store';
import { type ErrorCode, InstaVMError } from '@instavm/wire';
import pLimit from 'p-limit';
import type { Library, LibraryOptions } from './library.ts';

const LINK_LIFETIME_MS = 5 * 60_000;
/** Of Node's four threads for such work, which files and look-ups of names need as well; each takes 32 MB meanwhile. */
const HASHED_AT_ONCE = 2;
/** Beyond this the last of them would wait for longer than a person does. */
const MOST_WAITING = 20;
const RETRY_AFTER_MS = 5_000;
/** Refusals after which there is certainly no account. */
const MADE_NOTHING: readonly ErrorCode[] = ['email_taken', 'invalid_argument', 'rate_limited'];

export type SignedIn = {
  readonly account: Account;
  /** Of the answer, to be sent on: `Set-Cookie` values. */
  readonly cookies: readonly string[];
};

/** `id` is of this sign-in, which is one browser's. */
export type Found = SignedIn & { readonly id: string; readonly expiresAt: Date };

export type NewAccount = { readonly email: string; readonly password: string; readonly name: string };

type Answer<T> = { readonly headers: Headers; readonly response: T };

export class SignIns {
  readonly #accounts: Accounts;
  readonly #options: LibraryOptions;
  readonly #hashing = pLimit(HASHED_AT_ONCE);
  #loading: Promise<{ auth: Library; module: typeof import('./library.ts') }> | undefined;

  constructor(accounts: Accounts, options: LibraryOptions) {
    this.#accounts = accounts;
    this.#options = options;
  }

  /** @throws email_taken, invalid_argument */
  async signUp(wanted: NewAccount, headers: Headers): Promise<SignedIn> {
    const { auth, module } = await this.#library();
    const answer = () => auth.api.signUpEmail({ body: wanted, headers, returnHeaders: true });
    return this.#signedIn(() => this.#inTurn(() => module.withHashed(wanted.password, answer)), userId);
  }

  /** @throws sign_in_failed, the same for an unknown address and a wrong password, and as slow */
  async signIn(email: string, password: string, headers: Headers): Promise<SignedIn> {
    const { auth } = await this.#library();
    const body = { email, password };
    const answer = () => auth.api.signInEmail({ body, headers, returnHeaders: true });
    return this.#signedIn(() => this.#inTurn(answer), userId);
  }

  /** @throws sign_in_failed for a link that is unknown, used or too old */
  async signInByLink(token: string, headers: Headers): Promise<SignedIn> {
    const { auth } = await this.#library();
    const answer = () => auth.api.signInByLink({ body: { token }, headers, returnHeaders: true });
    return this.#signedIn(answer, ({ accountId }) => accountId);
  }

  /** Signs this browser in to the account, once and soon. */
  async createLink(accountId: AccountId): Promise<{ token: string; expiresAt: Date }> {
    return this.#createVerification('link', accountId, LINK_LIFETIME_MS);
  }

  /** @returns what the holder shows to make an account */
  async createInvitation(by: AccountId, lifetimeMs: number): Promise<{ token: string; expiresAt: Date }> {
    return this.#createVerification('invitation', by, lifetimeMs);
  }

  /** Uses the invitation up, or leaves it as it was. @throws invitation_invalid, and as `signUp` */
  async signUpInvited(token: string, wanted: NewAccount, headers: Headers): Promise<SignedIn> {
    const { auth, module } = await this.#library();
    const { internalAdapter } = await auth.$context;
    const identifier = module.verificationIdentifier('invitation', token);
    // First, so that two cannot both use it.
    const invitation = await internalAdapter.consumeVerificationValue(identifier);
    if (!invitation) throw new InstaVMError('invitation_invalid', 'the invitation is unknown, used or too old');
    try {
      return await this.signUp(wanted, headers);
    } catch (error) {
      const { value, expiresAt } = invitation;
      if (error instanceof InstaVMError && MADE_NOTHING.includes(error.code))
        await internalAdapter.createVerificationValue({ identifier, value, expiresAt });
      throw error;
    }
  }

  /** @param renew whether the cookie may be given a new lifetime, for answers that carry it. @returns undefined for nobody */
  async find(headers: Headers, renew: boolean): Promise<Found | undefined> {
    const { auth } = await this.#library();
    const query = { disableRefresh: !renew };
    const answer = await auth.api.getSession({ headers, query, returnHeaders: true });
    if (answer.response === null) return undefined;
    const account = await this.#accounts.find(answer.response.user.id as AccountId);
    const { id, expiresAt } = answer.response.session;
    return account && { account, id, expiresAt, cookies: answer.headers.getSetCookie() };
  }

  /** Of an account, by what `find` calls them. */
  async idsOf(accountId: AccountId): Promise<readonly string[]> {
    const { auth } = await this.#library();
    const { internalAdapter } = await auth.$context;
    return (await internalAdapter.listSessions(accountId)).map(({ id }) => id);
  }

  /** @returns the cookies that end it; also when nobody was signed in */
  async signOut(headers: Headers): Promise<readonly string[]> {
    const { auth } = await this.#library();
    return (await auth.api.signOut({ headers, returnHeaders: true })).headers.getSetCookie();
  }

  /** Also signs every other browser out. @throws sign_in_failed when the present password is not that */
  async changePassword(present: string, next: string, headers: Headers): Promise<readonly string[]> {
    const { auth } = await this.#library();
    const body = { newPassword: next, currentPassword: present, revokeOtherSessions: true };
    const answer = () => auth.api.changePassword({ body, headers, returnHeaders: true });
    return (await named(() => this.#inTurn(answer))).headers.getSetCookie();
  }

  /** For what hashes a password. @throws rate_limited */
  async #inTurn<T>(ask: () => Promise<T>): Promise<T> {
    if (this.#hashing.pendingCount >= MOST_WAITING)
      throw new InstaVMError('rate_limited', 'too many people sign in at once', {
        details: { retryAfterMs: RETRY_AFTER_MS },
      });
    return this.#hashing(ask);
  }

  async #createVerification(kind: 'link' | 'invitation', value: string, lifetimeMs: number) {
    const { auth, module } = await this.#library();
    const { internalAdapter } = await auth.$context;
    const token = randomBytes(32).toString('base64url');
    const expiresAt = new Date(Date.now() + lifetimeMs);
    const identifier = module.verificationIdentifier(kind, token);
    await internalAdapter.createVerificationValue({ identifier, value, expiresAt });
    return { token, expiresAt };
  }

  async #signedIn<T>(ask: () => Promise<Answer<T>>, idOf: (response: T) => string): Promise<SignedIn> {
    const { headers, response } = await named(ask);
    const account = await this.#accounts.find(idOf(response) as AccountId);
    if (account === undefined) throw new InstaVMError('sign_in_failed', 'the account is gone');
    return { account, cookies: headers.getSetCookie() };
  }

  /** Loaded with the first browser: a daemon that only programs use does without its 40 MB. */
  #library() {
    this.#loading ??= import('./library.ts').then((module) => ({
      auth: module.createLibrary(this.#options),
      module,
    }));
    return this.#loading;
  }
}

const userId = ({ user }: { user: { id: string } }): string => user.id;

type Refusal = { readonly status?: unknown; readonly body?: { readonly code?: string; readonly message?: string } };

/** The library's refusals under our names. */
async function named<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof InstaVMError) throw error;
    const { status, body } = error as Refusal;
    if (typeof status !== 'string' && typeof status !== 'number') throw error;
    const code = body?.code ?? '';
    if (code.startsWith('USER_ALREADY_EXISTS'))
      throw new InstaVMError('email_taken', 'there is an account with this e-mail address', { cause: error });
    if (code === 'PASSWORD_TOO_SHORT' || code === 'PASSWORD_TOO_LONG' || code === 'INVALID_EMAIL')
      throw new InstaVMError('invalid_argument', body?.message ?? code, { cause: error });
    throw new InstaVMError('sign_in_failed', 'the e-mail address, the password or the link is not valid', {
      cause: error,
    });
  }
}
