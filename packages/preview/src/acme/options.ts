/** What an operator says about certificates by ACME. */

export type AuthorityOptions = {
  /** Of the authority; https. Setting it agrees to the authority's terms of service. */
  readonly directoryUrl: string;
  /** Where the authority writes to about the account. */
  readonly email?: string | undefined;
  /** PEM file to trust for the authority's own address, instead of the well-known authorities. */
  readonly caPath?: string | undefined;
  /** Where the authority wants to know whose account it is (RFC 8555 §7.3.4). */
  readonly externalAccount?: { readonly kid: string; readonly hmacKey: string } | undefined;
};

export type AcmeOptions = AuthorityOptions & {
  /** Where HTTP-01 is answered and all else led to https; without it neither. */
  readonly httpListen?: { readonly host: string; readonly port: number } | undefined;
  /** Program for DNS-01: `HOOK add|remove _acme-challenge.NAME VALUE`. */
  readonly dnsHook?: string | undefined;
};
