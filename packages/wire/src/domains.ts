/** Custom domains of the contract (§13.1), and what we add to them. */
import { z } from 'zod';

/** What it may be is for `parseDomainName` of core to say. */
const MAX_DOMAIN_CHARS = 1_000;
const MAX_PROVIDER_CHARS = 100;

export const CreateDomainRequest = z.strictObject({
  domain: z.string().min(1).max(MAX_DOMAIN_CHARS).describe('A host name of two labels or more; no wildcard.'),
  share_id: z.string(),
  dns_provider: z
    .string()
    .max(MAX_PROVIDER_CHARS)
    .nullish()
    .describe('Kept and told, no more: the records are yours to create.'),
  dns_credentials: z.record(z.string(), z.unknown()).nullish().describe('Refused unless empty.'),
});

export const CustomDomain = z
  .object({
    id: z.number(),
    domain: z.string(),
    share_id: z.string(),
    status: z.enum(['pending', 'verified', 'issued', 'failed']),
    url: z.string().describe('Leads to the share once the status is issued.'),
    last_error: z.string().nullable().describe('What went wrong, and what to do; null unless the status is failed.'),
    last_error_code: z.string().nullable(),
    dns_provider: z.string(),
    setup: z.object({
      txt_record: z.object({ name: z.string(), value: z.string() }).describe('Proves whose the domain is.'),
      cname: z.object({ name: z.string(), target: z.string() }).describe('Leads visitors here.'),
      verify_endpoint: z.string(),
    }),
    created_at: z.string(),
    issued_at: z.string().nullable(),
  })
  .meta({ id: 'CustomDomain' });
export const CustomDomains = z.object({ domains: z.array(CustomDomain) });
export const CustomDomainDeleted = z.object({ id: z.number(), deleted: z.literal(true) });

export const CustomDomainHealth = CustomDomain.extend({
  cert_present: z.boolean(),
  key_present: z.boolean(),
  proxy_active: z.boolean().describe('The server reached itself by this name, with a certificate for it.'),
  cert_expires_at: z.string().nullable(),
}).meta({ id: 'CustomDomainHealth' });
