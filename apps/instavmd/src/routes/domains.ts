/** Custom domains (contract §13.1): host names of users' own for their shares. */
import { type AccountId, challengeOf, type DomainRecord } from '@instavm/core';
import {
  CreateDomainRequest,
  CustomDomain,
  CustomDomainDeleted,
  CustomDomainHealth,
  CustomDomains,
  InstaVMError,
} from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { type Caller, FULL, READ, requireAllSandboxes } from '../auth.ts';
import type { PreviewAddresses } from '../previews.ts';
import { previewsOf, shareIdOf } from './shares.ts';

const Params = z.object({ id: z.string() });
/** What the official client asks for, and what nobody here needs to know. */
const NO_PROVIDER = 'manual';

export const domainRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const { domains, domainHealth } = services;
    const created = {
      summary: 'A host name of your own for a share; then set its DNS records (setup) and verify it',
      body: CreateDomainRequest,
      response: { 200: CustomDomain },
    };
    app.post('/v1/custom-domains', { ...FULL, schema: created }, async ({ caller, body }) => {
      const previews = previewsOf(services);
      const { domain, share_id, dns_provider, dns_credentials } = body;
      refuseCredentials(dns_credentials);
      const wanted = { domain, shareId: shareIdOf(share_id), dnsProvider: dns_provider || NO_PROVIDER };
      return domainView(previews, await domains.create(accountIdOf(caller), wanted));
    });

    const listed = { summary: 'Custom domains, newest first', response: { 200: CustomDomains } };
    app.get('/v1/custom-domains', { ...READ, schema: listed }, async ({ caller }) => {
      const previews = previewsOf(services);
      return { domains: (await domains.list(accountIdOf(caller))).map((record) => domainView(previews, record)) };
    });

    const one = { params: Params, response: { 200: CustomDomain } };
    app.get('/v1/custom-domains/:id', { ...READ, schema: one }, async ({ caller, params }) =>
      domainView(previewsOf(services), await domains.get(accountIdOf(caller), domainIdOf(params.id))),
    );

    const verified = {
      summary:
        'Look for the TXT record, then have a certificate issued; ask for the domain until it is issued or failed',
      params: Params,
      response: { 200: CustomDomain },
    };
    app.post('/v1/custom-domains/:id/verify', { ...FULL, schema: verified }, async ({ caller, params }) => {
      const previews = previewsOf(services);
      return domainView(previews, await domains.verify(accountIdOf(caller), domainIdOf(params.id)));
    });

    const health = {
      summary: 'The domain, its certificate, and whether the preview listener answers for it',
      params: Params,
      response: { 200: CustomDomainHealth },
    };
    app.get('/v1/custom-domains/:id/health', { ...READ, schema: health }, async ({ caller, params }) => {
      const previews = previewsOf(services);
      const record = await domains.get(accountIdOf(caller), domainIdOf(params.id));
      const { certPresent, keyPresent, expiresAt, proxyActive } = await domainHealth(record);
      return {
        ...domainView(previews, record),
        cert_present: certPresent,
        key_present: keyPresent,
        proxy_active: proxyActive,
        cert_expires_at: expiresAt?.toISOString() ?? null,
      };
    });

    // As revoking a share, it works where nothing is served as well.
    const deleted = {
      summary: 'Delete a custom domain and its certificate',
      params: Params,
      response: { 200: CustomDomainDeleted },
    };
    app.delete('/v1/custom-domains/:id', { ...FULL, schema: deleted }, async ({ caller, params }) => {
      const id = domainIdOf(params.id);
      await domains.delete(accountIdOf(caller), id);
      return { id, deleted: true as const };
    });
  };

/** Domains are the account's. @throws permission_denied for a key that is for some sandboxes only */
function accountIdOf(caller: Caller): AccountId {
  requireAllSandboxes(caller);
  return caller.account.id;
}

/** @throws not_available */
function refuseCredentials(credentials: object | null | undefined): void {
  if (Object.keys(credentials ?? {}).length === 0) return;
  const message =
    'dns_credentials: this server keeps no credentials of DNS providers; create the records in setup yourself';
  throw new InstaVMError('not_available', message, {
    hint: 'Leave the credentials out. An operator who wants certificates by DNS sets INSTAVM_ACME_DNS_HOOK.',
  });
}

/** @throws domain_not_found */
function domainIdOf(text: string): number {
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new InstaVMError('domain_not_found', `there is no custom domain ${text.slice(0, 80)}`);
}

function domainView(previews: PreviewAddresses, record: DomainRecord) {
  const { hostname, port } = new URL(previews.urlOf(record.shareId));
  return {
    id: record.id,
    domain: record.domain,
    share_id: record.shareId,
    status: record.status,
    url: `https://${record.domain}${port === '' ? '' : `:${port}`}`,
    last_error: record.failure?.message ?? null,
    last_error_code: record.failure?.code ?? null,
    dns_provider: record.dnsProvider,
    setup: {
      txt_record: { name: challengeOf(record.domain), value: record.verificationToken },
      cname: { name: record.domain, target: hostname },
      verify_endpoint: `/v1/custom-domains/${record.id}/verify`,
    },
    created_at: record.createdAt.toISOString(),
    issued_at: record.issuedAt?.toISOString() ?? null,
  };
}
