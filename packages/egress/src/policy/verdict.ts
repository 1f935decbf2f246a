/** What the policy answers. Shared by the decision, the gateway, the log and the API. */

/** `allow_http`, `allow_public_repos:pypi.org`, `allowed_domains:*.example.com`, `allowed_cidrs:10.0.0.0/8`, `default_deny`, `private_address`, … */
export type RuleId = string;

export type Verdict =
  | { readonly allowed: true; readonly rule: RuleId }
  /** `reason` is a sentence for people that names the host and what would allow it. */
  | { readonly allowed: false; readonly rule: RuleId; readonly reason: string };

/** What a program asks for. */
export type Destination = {
  /** A host name in lower-case A-label form without the last dot; or an address in canonical text form, IPv6 without brackets. */
  readonly host: string;
  readonly isAddress: boolean;
  readonly port: number;
};
