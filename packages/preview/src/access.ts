/**
 * Who may see a private share. A link's token becomes a cookie of that host alone; programs send the token or an API key as a header; everyone
 * else is led to a page that says so, and that answers 200 because the official deploy flow polls private shares without credentials.
 */
import type { Clock, LinkId } from '@instavm/core';
import { COOKIE_NAME, type Field, ourCookies, TOKEN_HEADER, valuesOf } from './headers.ts';
import type { KeyHold, PreviewTarget, PreviewTargets } from './targets.ts';
import type { Proof, TokenPurpose, TokenSigner } from './tokens.ts';

export const PRIVATE_PAGE = '/.instavm/private';
/** A link may be valid for longer; the cookie that it became is not. */
const COOKIE_LIFETIME_MS = 24 * 3_600_000;

export type Asked = {
  readonly method: string;
  readonly fields: readonly Field[];
  readonly hostName: string;
  /** Host name and port, as the visitor wrote them. */
  readonly authority: string;
  /** Of the request target, already taken out of it. */
  readonly token: string | undefined;
  readonly isWebSocket: boolean;
};

/** Why somebody is let in; when that ends, so does what they have under way. */
export type Admission = 'public' | 'key' | LinkId;

export type Access =
  | { readonly kind: 'allowed'; readonly by: Admission; readonly hold?: KeyHold }
  /** To the same address without the token. */
  | { readonly kind: 'enter'; readonly setCookie: string }
  | { readonly kind: 'denied'; readonly reason: 'private' | 'link_expired' };

export class AccessRules {
  readonly #signer: TokenSigner;
  readonly #targets: PreviewTargets;
  readonly #clock: Clock;

  constructor(signer: TokenSigner, targets: PreviewTargets, clock: Clock) {
    this.#signer = signer;
    this.#targets = targets;
    this.#clock = clock;
  }

  async judge(target: PreviewTarget, asked: Asked): Promise<Access> {
    const { shareId } = target;
    const now = this.#clock.now();
    if (asked.token !== undefined) {
      const link = await this.#proof('link', shareId, [asked.token], now);
      if (!link && !target.isPublic) return { kind: 'denied', reason: 'link_expired' };
      const isVisit = !asked.isWebSocket && (asked.method === 'GET' || asked.method === 'HEAD');
      if (link && isVisit) return { kind: 'enter', setCookie: this.#cookie(shareId, link, now) };
      if (link) return { kind: 'allowed', by: link.linkId };
    }
    if (target.isPublic) return { kind: 'allowed', by: 'public' };

    const cookies = isOfThisSite(asked) ? ourCookies(valuesOf(asked.fields, 'cookie')) : [];
    const proof =
      (await this.#proof('link', shareId, valuesOf(asked.fields, TOKEN_HEADER), now)) ??
      (await this.#proof('cookie', shareId, cookies, now));
    if (proof) return { kind: 'allowed', by: proof.linkId };

    for (const key of apiKeysOf(asked.fields)) {
      const hold = await this.#targets.mayOpen(key, target);
      if (hold !== undefined) return { kind: 'allowed', by: 'key', hold };
    }
    return { kind: 'denied', reason: 'private' };
  }

  /** The first that is valid and whose link was not taken back. */
  async #proof(purpose: TokenPurpose, shareId: string, tokens: string[], now: Date): Promise<Proof | undefined> {
    for (const token of tokens) {
      const proof = this.#signer.verify(purpose, shareId, token, now);
      if (proof && !(await this.#targets.isLinkRevoked(shareId, proof.linkId))) return proof;
    }
    return undefined;
  }

  #cookie(shareId: string, link: Proof, now: Date): string {
    const expiresAt = new Date(Math.min(link.expiresAt.getTime(), now.getTime() + COOKIE_LIFETIME_MS));
    const seconds = Math.floor((expiresAt.getTime() - now.getTime()) / 1_000);
    const value = this.#signer.sign('cookie', shareId, { linkId: link.linkId, expiresAt });
    return `${COOKIE_NAME}=${value}; Max-Age=${seconds}; Path=/; Secure; HttpOnly; SameSite=Lax`;
  }
}

function apiKeysOf(fields: readonly Field[]): string[] {
  const bearers = valuesOf(fields, 'authorization').map((value) => /^bearer\s+(instavm_sk_\S+)\s*$/i.exec(value)?.[1]);
  const keys = valuesOf(fields, 'x-api-key').map((value) => /^\s*(instavm_sk_\S+)\s*$/.exec(value)?.[1]);
  return [...bearers, ...keys].filter((key) => key !== undefined).slice(0, 2);
}

/**
 * Whether a request with our cookie comes from the share's own pages or from somebody opening them. All shares are one site to SameSite, so without
 * this the page of one share could talk to another through its visitor's browser; WebSockets have no CORS that would stop it.
 */
function isOfThisSite({ fields, authority, isWebSocket }: Asked): boolean {
  const [origin] = valuesOf(fields, 'origin');
  if (origin !== undefined && origin.toLowerCase() !== `https://${authority.toLowerCase()}`) return false;
  if (isWebSocket) return true;
  const [site] = valuesOf(fields, 'sec-fetch-site');
  const [mode] = valuesOf(fields, 'sec-fetch-mode');
  return site === undefined || site === 'same-origin' || site === 'none' || mode === 'navigate';
}
