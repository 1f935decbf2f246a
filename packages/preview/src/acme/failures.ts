/** Why there is no certificate, as an error of the catalog: the authority's own reason, and what to do about it. */
import { InstaVMError } from '@instavm/wire';
import type { Problem } from './transport.ts';

/** By the error types of RFC 8555 §6.7; the catalog's hint is for all others. */
const REMEDIES: Readonly<Record<string, string>> = {
  connection:
    'The authority must reach this server under the name: point its A, AAAA or CNAME record here, and let port 443 (or 80) in.',
  dns: 'The name does not resolve, or its TXT record is not there: add the record, and wait until every name server has it.',
  tls: 'Another server answers under the name: point its A, AAAA or CNAME record here, without a proxy that ends TLS.',
  unauthorized: 'Another server answers under the name, or an older record is cached: point the name here, then wait.',
  incorrectResponse: 'Another server answers under the name: point its A, AAAA or CNAME record here.',
  caa: 'Let the authority issue for the domain in its CAA record, or remove that record.',
  rateLimited: 'Wait for as long as the authority says.',
  rejectedIdentifier: 'The authority does not issue for this name; use another name.',
  userActionRequired: 'The operator has to do what the authority asks for, such as agreeing to new terms.',
  externalAccountRequired: 'The operator has to set INSTAVM_ACME_EAB_KID and INSTAVM_ACME_EAB_HMAC.',
  accountDoesNotExist: 'Try again: the account is registered anew.',
};

export type Failure = {
  readonly domain: string;
  /** The end of a sentence about the name. */
  readonly reason: string;
  readonly challenge?: string | undefined;
  readonly problem?: Problem | undefined;
  readonly hint?: string | undefined;
  /** What the authority asks for. */
  readonly retryAfterMs?: number | undefined;
  readonly cause?: unknown;
};

export function certificateFailed({
  domain,
  reason,
  challenge,
  problem,
  hint,
  retryAfterMs,
  cause,
}: Failure): InstaVMError {
  const remedy = hint ?? REMEDIES[kindOf(problem)];
  const by = challenge === undefined ? '' : ` (${challenge})`;
  return new InstaVMError('certificate_failed', `No certificate for ${domain}${by}: ${reason}`, {
    details: {
      domain,
      ...(challenge === undefined ? {} : { challenge }),
      ...(retryAfterMs === undefined ? {} : { retry_after_seconds: Math.ceil(retryAfterMs / 1_000) }),
      ...(problem === undefined ? {} : { problem_type: problem.type, problem_detail: problem.detail }),
    },
    cause,
    ...(remedy === undefined ? {} : { hint: remedy }),
  });
}

/** The last word of a problem's type. */
export const kindOf = (problem: Problem | undefined): string =>
  /^urn:ietf:params:acme:error:(\w+)$/.exec(problem?.type ?? '')?.[1] ?? '';
