/** Signing in to the dashboard, and the login of command lines (contract §12.1). docs/guides/dashboard.md shows both at work. */
import { z } from 'zod';
import { noNul, plainText } from './common.ts';

/** Of our own making: 43 characters of base64url. */
const Token = z.string().min(1).max(128);
const Email = z.email().max(254);
/** Its length is for the rule of passwords to judge; this bounds the work. */
const Password = z.string().min(1).max(256);

export const SignUpMode = z.enum(['open', 'invitation', 'closed']);
export type SignUpMode = z.infer<typeof SignUpMode>;

export const SignedInAccount = z.object({
  id: z.string(),
  email: z.string(),
  name: z.string(),
  is_administrator: z.boolean(),
});
export const SignInState = z.object({
  account: SignedInAccount.nullable().describe('Null: nobody is signed in.'),
  sign_up: SignUpMode,
});
export const SignedIn = z.object({ account: SignedInAccount });

export const SignUpRequest = z.strictObject({
  email: Email,
  password: Password,
  name: plainText(200).trim().min(1),
  invitation: Token.optional(),
});
export const SignInRequest = z.strictObject({ email: Email, password: Password });
export const LinkSignInRequest = z.strictObject({ token: Token });
export const ChangePasswordRequest = z.strictObject({ present: Password, next: Password });
export const Done = z.object({ success: z.literal(true) });

export const InvitationRequest = z.strictObject({
  ttl_seconds: z.number().int().min(60).max(2_592_000).optional().describe('Seven days when it is left out.'),
});
export const OneTimeLink = z.object({ url: z.string(), expires_at: z.string() });

const CODE_CHALLENGE = /^[A-Za-z0-9_-]{43}$/;
/** RFC 7636 §4.1. */
const CODE_VERIFIER = /^[A-Za-z0-9._~-]{43,128}$/;

/** Unknown fields are let pass: later versions of the official client may send more. */
export const CliAuthStart = z.object({
  state: z.string().min(16).max(256),
  code_challenge: z.string().regex(CODE_CHALLENGE, 'must be a SHA-256 in base64url without padding'),
  code_challenge_method: z.literal('S256'),
  redirect_uri: z.string().max(256),
  cli_version: noNul(64).nullish(),
  hostname: noNul(255).nullish(),
});
export const CliAuthStarted = z.object({ pairing_id: z.string(), login_url: z.string() });
export const CliPairing = z.object({
  hostname: z.string(),
  cli_version: z.string().nullable(),
  expires_at: z.string(),
});
export const CliAuthAnswer = z.strictObject({ approve: z.boolean() });
export const CliAuthRedirect = z.object({ redirect_url: z.string().describe('Where the browser goes next.') });
export const CliAuthExchange = z.object({
  pairing_id: Token,
  code: Token,
  code_verifier: z.string().regex(CODE_VERIFIER, 'must be 43 to 128 unreserved characters'),
});
export const CliAuthKey = z.object({ api_key: z.string(), user: z.object({ email: z.string() }) });
