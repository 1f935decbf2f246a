/** API keys (contract §12), with scopes, restriction, expiry and rotation as our additions. */
import { z } from 'zod';
import { Metadata, plainText } from './common.ts';

/**
 * What a key may do, each including those before it: `read` looks, `run` makes, uses and ends sandboxes, `full` also manages keys and
 * whatever else is the account's.
 */
export const KEY_SCOPES = ['read', 'run', 'full'] as const;
export const KeyScope = z.enum(KEY_SCOPES);
export type KeyScope = z.infer<typeof KeyScope>;

const Name = plainText(100).refine((text) => text.trim() !== '', 'is empty');
const Description = plainText(500);
const Instant = z.iso.datetime({ offset: true }).transform((text) => new Date(text));
const MAX_GRACE_SECONDS = 7 * 86_400;

const NotEmpty = Metadata.refine((metadata) => Object.keys(metadata).length > 0, 'is empty');

/** The contract calls it a free object. Unknown fields are refused all the same: a wish for less that is not understood must not make a key for all. */
export const CreateKeyRequest = z
  .strictObject({
    name: Name.optional(),
    description: Description.nullish(),
    scope: KeyScope.default('full'),
    sandbox_metadata: NotEmpty.nullish().describe(
      'Only sandboxes with these entries in their metadata are there for it.',
    ),
    expires_at: Instant.nullish(),
  })
  .refine(({ scope, sandbox_metadata }) => scope !== 'full' || !sandbox_metadata, {
    path: ['scope'],
    message: 'must be run or read for a key that is restricted to some sandboxes',
  });
export type CreateKeyRequest = z.infer<typeof CreateKeyRequest>;

/** What a key may do is settled when it is made. */
export const UpdateKeyRequest = z.strictObject({
  name: Name.optional(),
  description: Description.nullish(),
  expires_at: Instant.nullish(),
});

export const RotateKeyRequest = z.strictObject({
  grace_seconds: z
    .number()
    .int()
    .min(0)
    .max(MAX_GRACE_SECONDS)
    .default(0)
    .describe('So long the old secret works beside the new one.'),
});

const key = {
  id: z.number().int(),
  name: z.string(),
  description: z.string().describe('The name, when no description was given.'),
  prefix: z.string().describe('Its first characters.'),
  scope: KeyScope,
  sandbox_metadata: z.record(z.string(), z.unknown()).nullable(),
  created_at: z.string(),
  expires_at: z.string().nullable(),
  last_used_at: z.string().nullable().describe('To the minute.'),
};
export const ApiKey = z.object(key).meta({ id: 'ApiKey' });
export const NewApiKey = z
  .object({ ...key, api_key: z.string().describe('The secret. It is shown this once.') })
  .meta({ id: 'NewApiKey' });
export const KeyRevoked = z.object({ id: z.number().int(), revoked: z.literal(true) });
