/** What the preview proxy is given: shares found by id, who may open them, and a connection to the port, for which the sandbox is woken. */
import type { Duplex } from 'node:stream';
import {
  type AccountId,
  type LifecycleLog,
  parseShareId,
  type SandboxId,
  type SandboxRecord,
  type ShareId,
  type Shares,
  type Wake,
} from '@instavm/core';
import { PreviewProxy, type PreviewTargets } from '@instavm/preview';
import type { ApiKeys } from '@instavm/store';
import { InstaVMError } from '@instavm/wire';
import { callerOf, isFor } from './auth.ts';
import type { Config } from './config.ts';

/** @returns undefined when they are off. @throws conflict when the address is taken */
export async function listenForPreviews(
  config: Config,
  directory: string,
  parts: PreviewParts,
  log: LifecycleLog,
): Promise<PreviewProxy | undefined> {
  const { INSTAVM_PREVIEW_LISTEN: listen, INSTAVM_PREVIEW_CERT: certPath, INSTAVM_PREVIEW_KEY: keyPath } = config;
  if (listen === undefined) return undefined;
  const certificate = certPath !== undefined && keyPath !== undefined ? { certificate: { certPath, keyPath } } : {};
  const own = { ...listen, domain: config.INSTAVM_PREVIEW_DOMAIN, directory, targets: previewTargets(parts), log };
  try {
    const proxy = await PreviewProxy.listen({ ...own, ...certificate });
    parts.shares.onWithdrawn((id) => proxy.drop(id));
    log.info({ url: proxy.urlOf('<share>'), ca: proxy.caPath }, 'previews');
    return proxy;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EADDRINUSE' && code !== 'EACCES' && code !== 'EADDRNOTAVAIL') throw error;
    throw new InstaVMError('conflict', `cannot serve previews on ${listen.host}:${listen.port} (${code})`, {
      cause: error,
      hint: 'Stop what listens there, or set INSTAVM_PREVIEW_LISTEN to another host:port, or to off.',
    });
  }
}

/** Where shares are, and links that open private ones. */
export type PreviewAddresses = {
  urlOf(shareId: string): string;
  signedUrlOf(shareId: string, expiresAt: Date): string;
};

/** The part of a sandbox that a preview needs. */
type Owner = {
  readonly record: SandboxRecord;
  hold(): () => void;
  guest(wake: Wake): Promise<{ connectPort(port: number, signal: AbortSignal): Promise<Duplex> }>;
};

export type PreviewParts = {
  readonly shares: Shares;
  readonly sandboxes: { get(accountId: AccountId, id: SandboxId): Promise<Owner> };
  readonly keys: ApiKeys;
};

type Connection = { readonly isPublic: boolean; readonly cut: AbortController };

/**
 * A connection holds its sandbox as used until it is closed. Revoking the share closes it, and so does making it private for one that was opened
 * while it was public.
 */
export function previewTargets({ shares, sandboxes, keys }: PreviewParts): PreviewTargets {
  /** From before they are dialled until they are closed. */
  const connections = new Map<ShareId, Set<Connection>>();
  shares.onWithdrawn((id, how) => {
    for (const { isPublic, cut } of connections.get(id) ?? []) if (how === 'revoked' || isPublic) cut.abort();
  });

  function track(id: ShareId, isPublic: boolean): { cut: AbortSignal; forget: () => void } {
    const ofShare = connections.get(id) ?? new Set();
    connections.set(id, ofShare);
    const connection = { isPublic, cut: new AbortController() };
    ofShare.add(connection);
    const forget = (): void => {
      ofShare.delete(connection);
      if (ofShare.size === 0 && connections.get(id) === ofShare) connections.delete(id);
    };
    return { cut: connection.cut.signal, forget };
  }

  return {
    async find(text) {
      const shareId = parseShareId(text);
      const share = shareId && (await shares.find(shareId));
      if (share === undefined) return undefined;
      const { id, accountId, sandboxId, port, isPublic, rewriteHost } = share;
      const connect = async (signal: AbortSignal): Promise<Duplex> => {
        const { cut, forget } = track(id, isPublic);
        const closing: (() => void)[] = [forget];
        const close = (): void => {
          for (const each of closing.splice(0)) each();
        };
        try {
          // Withdrawn after `find`, before it was tracked.
          const now = await shares.find(id);
          if (now === undefined || (isPublic && !now.isPublic)) throw withdrawn();
          const owner = await sandboxes.get(accountId, sandboxId);
          closing.push(owner.hold());
          const guest = await owner.guest('suspended');
          const stream = await guest.connectPort(port, AbortSignal.any([signal, cut]));
          stream.once('close', close);
          cut.addEventListener('abort', () => stream.destroy(), { once: true });
          if (cut.aborted) {
            stream.destroy();
            throw withdrawn();
          }
          if (stream.closed) close();
          return stream;
        } catch (error) {
          close();
          throw cut.aborted ? withdrawn() : error;
        }
      };
      const serviceAuthority = rewriteHost ? `localhost:${port}` : undefined;
      return { shareId: id, sandboxId, port, isPublic, serviceAuthority, connect };
    },

    async mayOpen(apiKey, { shareId }) {
      const caller = await callerOf(keys, apiKey);
      const id = parseShareId(shareId);
      const share = id && (await shares.find(id));
      // What a page does behind its address is more than looking.
      if (caller === undefined || caller.scope === 'read' || share?.accountId !== caller.account.id) return false;
      const { record } = await sandboxes.get(share.accountId, share.sandboxId);
      return isFor(caller, record, record.metadata);
    },
  };
}

const withdrawn = (): InstaVMError => new InstaVMError('share_not_found', 'the share was revoked or made private');
