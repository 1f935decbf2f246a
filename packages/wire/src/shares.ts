/** Shares of the contract (§10.2, §4), and what we add to them. */
import { z } from 'zod';

export const Port = z.number().int().min(1).max(65_535);

/** At least one of the two ids; the microVM's wins. */
export const CreateShareRequest = z
  .strictObject({
    port: Port,
    is_public: z
      .boolean()
      .nullish()
      .describe('Left out, a new share is private, and one that is there stays as it is.'),
    rewrite_host: z
      .boolean()
      .nullish()
      .describe(
        'Ours. The program sees `localhost:<port>` as Host; else what the visitor wrote. Left out as is_public.',
      ),
    session_id: z.string().nullish(),
    vm_id: z.string().nullish(),
  })
  .refine(({ session_id, vm_id }) => session_id || vm_id, {
    path: ['session_id'],
    message: 'give vm_id or session_id',
  });

export const Share = z
  .object({
    share_id: z.string(),
    url: z.string().describe('The same as long as the share is open; no other share has the same host.'),
    port: z.number(),
    is_public: z.boolean(),
    rewrite_host: z.boolean(),
    session_id: z.string(),
    created_at: z.string(),
  })
  .meta({ id: 'Share' });
export const Shares = z.object({ shares: z.array(Share) });
export const ShareRevoked = z.object({ share_id: z.string(), revoked: z.literal(true) });

/** `revoke: true` wins. */
export const UpdateShareRequest = z
  .strictObject({
    is_public: z.boolean().nullish(),
    rewrite_host: z.boolean().nullish(),
    revoke: z.boolean().nullish(),
  })
  .refine(({ revoke, ...settings }) => revoke === true || Object.values(settings).some((value) => value != null), {
    path: ['is_public'],
    message: 'give is_public, rewrite_host, or revoke: true',
  });

export const SharesQuery = z.object({
  session_id: z.string().optional(),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  before: z.string().optional().describe('A share_id: those that come after it in the list.'),
});

export const MAX_LINK_SECONDS = 7 * 86_400;
export const ShareTokenRequest = z.strictObject({
  ttl_seconds: z.number().int().min(1).max(MAX_LINK_SECONDS).default(3_600),
});
export const ShareToken = z.object({
  link_id: z.string().describe('By which it can be taken back.'),
  url: z.string().describe('Opens the share for whoever has it, until then.'),
  expires_at: z.string(),
});

export const LinkRevoked = z.object({ link_id: z.string(), revoked: z.literal(true) });

export const PreviewAuthority = z.object({
  domain: z.string().describe('It can speak for names under this one, and for nothing else.'),
  certificate: z.string().describe('PEM'),
});

export const AppUrlQuery = z.object({ port: z.coerce.number().pipe(Port).default(80) });
export const AppUrl = z.object({
  direct_url: z.string().describe('Opens without a credential: for a private share it is a link that expires.'),
  url: z.string().describe('The same.'),
  share_id: z.string(),
  is_public: z.boolean(),
  port: z.number(),
  session_id: z.string(),
  vm_id: z.string().nullable(),
  vm_ip: z.null().describe('A sandbox has no address.'),
  status: z.string(),
  expires_in_seconds: z.number(),
});
