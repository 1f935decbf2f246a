/** Addresses of ports (contract §10.2, and `app-url` of §4), with a list, signed links, DELETE and the certificate authority as our additions. */
import {
  type AccountId,
  MAX_OPEN_SHARES,
  newLinkId,
  parseLinkId,
  parseShareId,
  type SandboxRecord,
  type ShareChange,
  type ShareId,
  type ShareRecord,
} from '@instavm/core';
import {
  AppUrl,
  AppUrlQuery,
  CreateShareRequest,
  InstaVMError,
  LinkRevoked,
  PreviewAuthority,
  Share,
  ShareRevoked,
  Shares,
  SharesQuery,
  ShareToken,
  ShareTokenRequest,
  UpdateShareRequest,
} from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { type Caller, READ, RUN } from '../auth.ts';
import type { PreviewAddresses } from '../previews.ts';
import { isSandboxFor, ownerOf, ownerOfVm, vmStatus } from './views.ts';

const Params = z.object({ id: z.string() });
const LinkParams = z.object({ id: z.string(), link: z.string() });
const SessionParams = z.object({ sid: z.string() });

export const shareRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const { shares } = services;
    const created = {
      summary: 'The address of a port, the same one each time until it is revoked',
      body: CreateShareRequest,
      response: { 200: Share },
    };
    app.post('/v1/shares', { ...RUN, schema: created }, async ({ caller, body }) => {
      const previews = previewsOf(services);
      const { vm_id, session_id, port } = body;
      const owner = vm_id
        ? await ownerOfVm(services, caller, vm_id)
        : await ownerOf(services, caller, session_id ?? '');
      return shareView(previews, await shares.open(owner.record, port, settingsOf(body)));
    });

    const listed = {
      summary: 'Shares that are open, newest first',
      querystring: SharesQuery,
      response: { 200: Shares },
    };
    app.get('/v1/shares', { ...READ, schema: listed }, async ({ caller, query }) => {
      const previews = previewsOf(services);
      const sandboxId = query.session_id && (await ownerOf(services, caller, query.session_id)).record.id;
      const before = query.before === undefined ? undefined : shareIdOf(query.before);
      // Of a restricted caller's it is not known which are theirs before all are there.
      const limit = caller.sandboxMetadata === null ? query.limit : MAX_OPEN_SHARES;
      const records: ShareRecord[] = [];
      for (const record of await shares.list(caller.account.id, { limit, sandboxId: sandboxId || undefined, before }))
        if (records.length < query.limit && (await isSandboxFor(services, caller, record.sandboxId)))
          records.push(record);
      return { shares: records.map((record) => shareView(previews, record)) };
    });

    const one = { params: Params, response: { 200: Share } };
    app.get('/v1/shares/:id', { ...READ, schema: one }, async ({ caller, params }) =>
      shareView(
        previewsOf(services),
        await shares.get(caller.account.id, await shareIdFor(services, caller, params.id)),
      ),
    );

    // Revoking works where nothing is served as well: a later daemon might.
    const revoke = async (accountId: AccountId, id: ShareId) => {
      await shares.revoke(accountId, id);
      return { share_id: id, revoked: true as const };
    };
    const changed = {
      summary: 'Make a share public or private, change what Host its program sees, or revoke it',
      params: Params,
      body: UpdateShareRequest,
      response: { 200: z.union([Share, ShareRevoked]) },
    };
    app.patch('/v1/shares/:id', { ...RUN, schema: changed }, async ({ caller, params, body }) => {
      const id = await shareIdFor(services, caller, params.id);
      if (body.revoke) return revoke(caller.account.id, id);
      return shareView(previewsOf(services), await shares.change(caller.account.id, id, settingsOf(body)));
    });
    const revoked = { summary: 'Revoke a share', params: Params, response: { 200: ShareRevoked } };
    app.delete('/v1/shares/:id', { ...RUN, schema: revoked }, async ({ caller, params }) =>
      revoke(caller.account.id, await shareIdFor(services, caller, params.id)),
    );

    const signed = {
      summary: 'A link that opens a private share for a while without any other credential',
      params: Params,
      body: ShareTokenRequest.nullish(),
      response: { 200: ShareToken },
    };
    app.post('/v1/shares/:id/token', { ...RUN, schema: signed }, async ({ caller, params, body }) => {
      const previews = previewsOf(services);
      const share = await shares.get(caller.account.id, await shareIdFor(services, caller, params.id));
      const { ttl_seconds } = body ?? ShareTokenRequest.parse({});
      const { url, linkId, expiresAt } = await signedLink(services, previews, share, ttl_seconds);
      return { link_id: linkId, url, expires_at: expiresAt.toISOString() };
    });

    const linkRevoked = {
      summary: 'Take back one link, with the cookies that it became and whoever is in through it',
      params: LinkParams,
      response: { 200: LinkRevoked },
    };
    app.delete('/v1/shares/:id/links/:link', { ...RUN, schema: linkRevoked }, async ({ caller, params }) => {
      const linkId = parseLinkId(params.link);
      if (linkId === undefined)
        throw new InstaVMError('invalid_argument', `${params.link.slice(0, 80)} is the id of no link`, {
          hint: 'It is link_id of POST /v1/shares/{id}/token, and what the token in the link begins with: lnk…',
        });
      await shares.revokeLink(caller.account.id, await shareIdFor(services, caller, params.id), linkId);
      return { link_id: linkId, revoked: true as const };
    });

    const trusted = {
      summary: 'The certificate authority of previews, for clients that shall trust it',
      response: { 200: PreviewAuthority },
    };
    app.get('/v2/previews/ca', { ...READ, schema: trusted }, async () => {
      const { authority } = previewsOf(services);
      if (authority === undefined)
        throw new InstaVMError(
          'not_available',
          'previews have a certificate of their own here, not of a local authority',
          {
            hint: 'Trust whoever issued the file in INSTAVM_PREVIEW_CERT; with a public one there is nothing to do.',
          },
        );
      return { domain: authority.domain, certificate: authority.certPem };
    });

    const appUrl = {
      summary: 'A port of a session as a URL that opens without a credential: a public share, or a link that expires',
      params: SessionParams,
      querystring: AppUrlQuery,
      response: { 200: AppUrl },
    };
    app.get('/v1/sessions/app-url/:sid', { ...RUN, schema: appUrl }, async ({ caller, params, query }) => {
      const previews = previewsOf(services);
      const { record } = await ownerOf(services, caller, params.sid);
      const share = await shares.open(record, query.port);
      const seconds = linkSeconds(record);
      // Asking for an address makes nothing public that was not.
      const url = share.isPublic
        ? previews.urlOf(share.id)
        : (await signedLink(services, previews, share, seconds)).url;
      return {
        direct_url: url,
        url,
        share_id: share.id,
        is_public: share.isPublic,
        port: share.port,
        session_id: record.id,
        vm_id: record.incarnationId,
        vm_ip: null,
        status: vmStatus(record),
        expires_in_seconds: seconds,
      };
    });
  };

/** Kept nowhere, so the audit trail is all that tells of it. */
async function signedLink({ audit }: Services, previews: PreviewAddresses, share: ShareRecord, seconds: number) {
  const { id, accountId, sandboxId, port } = share;
  const expiresAt = new Date(Date.now() + seconds * 1000);
  const linkId = newLinkId();
  const resource = { type: 'share', id };
  const details = { port, link_id: linkId, expires_at: expiresAt.toISOString() };
  await audit.tell({ accountId, sandboxId, resource, type: 'share.link_created', status: 'success', details });
  return { url: previews.signedUrlOf(id, linkId, expiresAt), linkId, expiresAt };
}

/** What is left of the session's life; a whole one for a session that is suspended. */
function linkSeconds({ expiresAt, ttlSeconds }: SandboxRecord): number {
  const left = expiresAt === null ? ttlSeconds : (expiresAt.getTime() - Date.now()) / 1000;
  return Math.max(1, Math.ceil(left));
}

/** @throws not_available */
export function previewsOf({ previews }: Services): PreviewAddresses {
  if (previews === undefined)
    throw new InstaVMError('not_available', 'this server serves no previews', {
      hint: 'Set INSTAVM_PREVIEW_LISTEN to a host:port, such as 127.0.0.1:8443, and start the server again.',
    });
  return previews;
}

/** @throws share_not_found */
export function shareIdOf(text: string): ShareId {
  const id = parseShareId(text);
  if (id === undefined) throw noShare(text);
  return id;
}

/** One that may be there for the caller; whether it is the account's, `Shares` looks. @throws share_not_found */
async function shareIdFor(services: Services, caller: Caller, text: string): Promise<ShareId> {
  const id = shareIdOf(text);
  if (caller.sandboxMetadata === null) return id;
  const { sandboxId } = await services.shares.get(caller.account.id, id);
  if (!(await isSandboxFor(services, caller, sandboxId))) throw noShare(text);
  return id;
}

const noShare = (text: string): InstaVMError =>
  new InstaVMError('share_not_found', `there is no share ${text.slice(0, 80)}`);

type WireSettings = {
  readonly is_public?: boolean | null | undefined;
  readonly rewrite_host?: boolean | null | undefined;
};
const settingsOf = ({ is_public, rewrite_host }: WireSettings): ShareChange => ({
  isPublic: is_public ?? undefined,
  rewriteHost: rewrite_host ?? undefined,
});

const shareView = (previews: PreviewAddresses, record: ShareRecord) => ({
  share_id: record.id,
  url: previews.urlOf(record.id),
  port: record.port,
  is_public: record.isPublic,
  rewrite_host: record.rewriteHost,
  session_id: record.sandboxId,
  created_at: record.createdAt.toISOString(),
});
