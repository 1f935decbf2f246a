/**
 * Logins of command lines that are under way (contract §12.1): OAuth's authorization code flow for native apps (RFC 8252) with
 * PKCE (RFC 7636), without registered clients. Kept in memory: a restart of the daemon ends them, and the command is run again.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { AccountId } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';

/** The official client waits for five minutes. */
const LIFETIME_MS = 5 * 60_000;
/** From the approval to the exchange, which programs do at once. */
const CODE_LIFETIME_MS = 60_000;
const MAX_PAIRINGS = 1_000;

export type Wanted = {
  readonly state: string;
  readonly codeChallenge: string;
  readonly redirectUri: string;
  readonly hostname: string;
  readonly cliVersion: string | null;
};

export type Pairing = Wanted & { readonly expiresAt: Date };

type Grant = { readonly accountId: AccountId; readonly codeDigest: Buffer; readonly expiresAt: number };
type Entry = { readonly pairing: Pairing; grant: Grant | undefined };

export class Pairings {
  /** In order of expiry. */
  readonly #entries = new Map<string, Entry>();
  readonly #now: () => number;

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** @throws invalid_argument, rate_limited */
  start(wanted: Wanted): { id: string } {
    requireLoopback(wanted.redirectUri);
    this.#forgetExpired();
    if (this.#entries.size >= MAX_PAIRINGS) throw new InstaVMError('rate_limited', 'too many logins are under way');
    const id = randomBytes(24).toString('base64url');
    this.#entries.set(id, { pairing: { ...wanted, expiresAt: new Date(this.#now() + LIFETIME_MS) }, grant: undefined });
    return { id };
  }

  /** What a person is asked about. @throws pairing_not_found, also for one that was answered */
  waiting(id: string): Pairing {
    return this.#waiting(id).pairing;
  }

  /** @returns where the browser goes, with the code that only the program which started this can use */
  approve(id: string, accountId: AccountId): string {
    const entry = this.#waiting(id);
    const code = randomBytes(32).toString('base64url');
    entry.grant = { accountId, codeDigest: sha256(code), expiresAt: this.#now() + CODE_LIFETIME_MS };
    return redirect(entry.pairing, { code });
  }

  /** @returns where the browser goes to tell the program */
  refuse(id: string): string {
    const { pairing } = this.#waiting(id);
    this.#entries.delete(id);
    return redirect(pairing, { error: 'access_denied' });
  }

  /** Any attempt, also a wrong one, is the last. @throws pairing_not_found, sign_in_failed */
  exchange(id: string, code: string, codeVerifier: string): { accountId: AccountId; hostname: string } {
    const entry = this.#entries.get(id);
    if (entry?.grant === undefined || entry.grant.expiresAt <= this.#now()) throw notFound();
    this.#entries.delete(id);
    const { grant, pairing } = entry;
    const isCode = timingSafeEqual(sha256(code), grant.codeDigest);
    // RFC 7636 §4.6.
    const challenge = Buffer.from(pairing.codeChallenge, 'base64url');
    const isVerifier = timingSafeEqual(sha256(codeVerifier), challenge);
    if (!isCode || !isVerifier) throw new InstaVMError('sign_in_failed', 'the code or its verifier is not valid');
    return { accountId: grant.accountId, hostname: pairing.hostname };
  }

  #waiting(id: string): Entry {
    const entry = this.#entries.get(id);
    if (entry === undefined || entry.grant !== undefined || entry.pairing.expiresAt.getTime() <= this.#now())
      throw notFound();
    return entry;
  }

  #forgetExpired(): void {
    for (const [id, { pairing }] of this.#entries) {
      if (pairing.expiresAt.getTime() > this.#now()) return;
      this.#entries.delete(id);
    }
  }
}

const notFound = (): InstaVMError =>
  new InstaVMError('pairing_not_found', 'this login is unknown, was answered already, or is too old');

const sha256 = (text: string): Buffer => createHash('sha256').update(text).digest();

/** The code may go to a program on the person's own machine and nowhere else (RFC 8252 §7.3). */
const LOOPBACK_CALLBACK = /^http:\/\/(?:127\.0\.0\.1|\[::1\]|localhost):(\d{1,5})\/callback$/;

/** @throws invalid_argument */
function requireLoopback(redirectUri: string): void {
  const port = Number(LOOPBACK_CALLBACK.exec(redirectUri)?.[1]);
  if (!(port >= 1 && port <= 65_535))
    throw new InstaVMError('invalid_argument', 'redirect_uri: must be http://127.0.0.1:<port>/callback');
}

function redirect({ redirectUri, state }: Pairing, fields: Readonly<Record<string, string>>): string {
  const url = new URL(redirectUri);
  for (const [name, value] of Object.entries({ ...fields, state })) url.searchParams.set(name, value);
  return url.href;
}
