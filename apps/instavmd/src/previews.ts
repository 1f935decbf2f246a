/** What the preview proxy is given: shares found by id, who may open them, and a connection to the port, for which the sandbox is woken. */
import type { Duplex } from 'node:stream';
import {
  type AccountId,
  type DomainRecords,
  type LifecycleLog,
  type LinkId,
  parseShareId,
  type SandboxId,
  type SandboxRecord,
  type Shares,
  type Wake,
} from '@instavm/core';
import { type AcmeOptions, PreviewProxy, type PreviewTarget, type PreviewTargets } from '@instavm/preview';
import type { ApiKeys } from '@instavm/store';
import { InstaVMError } from '@instavm/wire';
import { actingFor, visitorOf } from './acting.ts';
import { callerOf, isFor } from './auth.ts';
import type { Config } from './config.ts';
import type { KeyConnections } from './key-connections.ts';
import { listening } from './listening.ts';
import { counted } from './usage-samples/counted.ts';
import type { UsageSampler } from './usage-samples/sampler.ts';

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
  const acme = acmeOptions(config);
  const own = { ...listen, domain: config.INSTAVM_PREVIEW_DOMAIN, directory, targets: previewTargets(parts), log };
  const started = PreviewProxy.listen({ ...own, ...certificate, ...(acme ? { acme } : {}) });
  const setting = 'INSTAVM_PREVIEW_LISTEN to another host:port, or to off';
  const httpSetting = 'INSTAVM_ACME_HTTP_LISTEN to another host:port, or not at all';
  const forHttp = acme?.httpListen ? [{ ...acme.httpListen, setting: httpSetting }] : [];
  const proxy = await listening(started, 'serve previews', { ...listen, setting }, ...forHttp);
  parts.shares.onWithdrawn((id, what) => proxy.withdraw(id, what));
  log.info({ url: proxy.urlOf('<share>'), ca: proxy.authority?.certPath, acme: acme?.directoryUrl }, 'previews');
  return proxy;
}

function acmeOptions(config: Config): AcmeOptions | undefined {
  const { INSTAVM_ACME_DIRECTORY: directoryUrl, INSTAVM_ACME_EAB_KID: kid, INSTAVM_ACME_EAB_HMAC: hmacKey } = config;
  if (directoryUrl === undefined) return undefined;
  return {
    directoryUrl,
    email: config.INSTAVM_ACME_EMAIL,
    caPath: config.INSTAVM_ACME_CA,
    externalAccount: kid !== undefined && hmacKey !== undefined ? { kid, hmacKey } : undefined,
    httpListen: config.INSTAVM_ACME_HTTP_LISTEN,
    dnsHook: config.INSTAVM_ACME_DNS_HOOK,
  };
}

/** Where shares are, links that open private ones, and what visitors have to trust. */
export type PreviewAddresses = {
  /** Undefined with a certificate of the operator's own. */
  readonly authority: { readonly domain: string; readonly certPem: string } | undefined;
  urlOf(shareId: string): string;
  signedUrlOf(shareId: string, linkId: LinkId, expiresAt: Date): string;
};

/** The part of a sandbox that a preview needs. */
type Owner = {
  readonly record: SandboxRecord;
  hold(): () => void;
  guest(wake: Wake): Promise<{ connectPort(port: number, signal: AbortSignal): Promise<Duplex> }>;
};

export type PreviewParts = {
  readonly sampler: Pick<UsageSampler, 'count'>;
  readonly shares: Shares;
  readonly sandboxes: { get(accountId: AccountId, id: SandboxId): Promise<Owner> };
  readonly keys: ApiKeys;
  readonly keyConnections: Pick<KeyConnections, 'hold'>;
  readonly domains: Pick<DomainRecords, 'findHeld'>;
};

/** A connection holds its sandbox as used until it is closed. */
export function previewTargets({
  sampler,
  shares,
  sandboxes,
  keys,
  keyConnections,
  domains,
}: PreviewParts): PreviewTargets {
  async function find(text: string): Promise<PreviewTarget | undefined> {
    const shareId = parseShareId(text);
    const share = shareId && (await shares.find(shareId));
    if (share === undefined) return undefined;
    const { id, accountId, sandboxId, port, isPublic, rewriteHost } = share;
    const connect = async (signal: AbortSignal): Promise<Duplex> => {
      const owner = await sandboxes.get(accountId, sandboxId);
      const release = owner.hold();
      try {
        // A visitor may be anyone; what the trail can tell is by which share it came.
        const guest = await actingFor(visitorOf(id), () => owner.guest('suspended'));
        const stream = counted(
          await guest.connectPort(port, signal),
          (bytes) => sampler.count(sandboxId, 'previewSentBytes', bytes),
          (bytes) => sampler.count(sandboxId, 'previewReceivedBytes', bytes),
        );
        if (stream.closed) release();
        else stream.once('close', release);
        return stream;
      } catch (error) {
        release();
        throw error;
      }
    };
    const serviceAuthority = rewriteHost ? `localhost:${port}` : undefined;
    return { shareId: id, sandboxId, port, isPublic, serviceAuthority, connect };
  }

  return {
    find,

    async findDomain(host) {
      const domain = await domains.findHeld(host);
      if (domain === undefined) return undefined;
      const target = await find(domain.shareId);
      // As the share's own address would: the host is the right one, and its share is gone.
      if (target === undefined)
        throw new InstaVMError('share_not_found', 'The share of this domain was revoked, or its sandbox is gone.');
      return target;
    },

    async isLinkRevoked(shareId, linkId) {
      const id = parseShareId(shareId);
      return id === undefined || shares.isLinkRevoked(id, linkId);
    },

    async mayOpen(apiKey, { shareId }) {
      const caller = await callerOf(keys, apiKey);
      const id = parseShareId(shareId);
      const share = id && (await shares.find(id));
      // What a page does behind its address is more than looking.
      if (caller === undefined || caller.scope === 'read' || share?.accountId !== caller.account.id) return undefined;
      const { record } = await sandboxes.get(share.accountId, share.sandboxId);
      return isFor(caller, record, record.metadata) ? (end) => keyConnections.hold(caller, end) : undefined;
    },
  };
}
