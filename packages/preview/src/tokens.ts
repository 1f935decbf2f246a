/**
 * Signed, expiring proofs that somebody may open one private share: the token of a link or a header, and the cookie that a link turns into.
 * Both are `<link id>.<expiry, base 36 seconds>.<HMAC-SHA256, base64url>` over purpose, share, link and expiry, so none stands for another.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { join } from 'node:path';
import { type LinkId, parseLinkId } from '@instavm/core';
import { readOrCreateSecret } from './files.ts';

export type TokenPurpose = 'link' | 'cookie';

/** `linkId`: the link that was given, also in the cookie that it became. */
export type Proof = { readonly linkId: LinkId; readonly expiresAt: Date };

const SHAPE = /^(\w{1,40})\.([0-9a-z]{1,10})\.([A-Za-z0-9_-]{43})$/;

export class TokenSigner {
  readonly #secret: Buffer;

  constructor(secret: Buffer) {
    this.#secret = secret;
  }

  /** With the secret of a directory, made on first use; removing the file makes every link and cookie void. */
  static async open(directory: string): Promise<TokenSigner> {
    const make = async (): Promise<string> => `${randomBytes(32).toString('hex')}\n`;
    const secret = Buffer.from((await readOrCreateSecret(join(directory, 'preview-secret'), make)).trim(), 'hex');
    if (secret.length !== 32) throw new Error('the file preview-secret is damaged; remove it to have a new one made');
    return new TokenSigner(secret);
  }

  sign(purpose: TokenPurpose, shareId: string, { linkId, expiresAt }: Proof): string {
    const expiry = Math.floor(expiresAt.getTime() / 1_000).toString(36);
    return `${linkId}.${expiry}.${this.#mac(purpose, shareId, linkId, expiry).toString('base64url')}`;
  }

  /** @returns what the token says; undefined when it is not valid for this share and purpose, or has ended */
  verify(purpose: TokenPurpose, shareId: string, token: string, now: Date): Proof | undefined {
    const [, link = '', expiry, mac] = SHAPE.exec(token) ?? [];
    const linkId = parseLinkId(link);
    if (linkId === undefined || expiry === undefined || mac === undefined) return undefined;
    if (!timingSafeEqual(Buffer.from(mac, 'base64url'), this.#mac(purpose, shareId, linkId, expiry))) return undefined;
    const expiresAt = new Date(Number.parseInt(expiry, 36) * 1_000);
    return expiresAt.getTime() > now.getTime() ? { linkId, expiresAt } : undefined;
  }

  #mac(purpose: TokenPurpose, shareId: string, linkId: LinkId, expiry: string): Buffer {
    const signed = `instavm preview\n${purpose}\n${shareId}\n${linkId}\n${expiry}`;
    return createHmac('sha256', this.#secret).update(signed).digest();
  }
}
