/** Host names of shares: `<share id>.<domain>`. Anything that is not exactly of that form is nobody's. */

const SHARE_ID = /^shr[a-z2-7]{20}$/;
const DOMAIN = /^(?=.{3,200}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$/;
const AUTHORITY = /^([a-z0-9.-]{1,253})(:\d{1,5})?$/;

/** Two labels at least: a wildcard certificate directly under a top-level name is refused by clients. */
export const isPreviewDomain = (domain: string): boolean => DOMAIN.test(domain);

/** @returns the host name, in lower case and without the port; undefined when the text is no host name (an address literal, user info, …) */
export const hostNameOf = (authority: string): string | undefined => AUTHORITY.exec(authority.toLowerCase())?.[1];

/** @returns undefined when the name is not directly under the domain; an `id` of undefined when it is, but is no share's */
export function shareOfHost(hostName: string, domain: string): { readonly id: string | undefined } | undefined {
  if (!hostName.endsWith(`.${domain}`)) return undefined;
  const label = hostName.slice(0, -domain.length - 1);
  return { id: SHARE_ID.test(label) ? label : undefined };
}
