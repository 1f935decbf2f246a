/** Which host names can be custom domains, and the one spelling of each. Whose they are is for a TXT record to say (domains.ts). */

declare const brand: unique symbol;
/** Lower case, internationalized labels as A-labels, no dot at the end. */
export type DomainName = string & { readonly [brand]: 'DomainName' };

/** Below a domain: where its owner says whose it is here. */
const CHALLENGE_LABEL = '_instavm-challenge';
/** RFC 1035 §2.3.4: 253 characters with the longest name below it that somebody asks for. */
const MAX_LENGTH = 253 - CHALLENGE_LABEL.length - 1;
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
/** What a URL would take for something else than a part of its host, or drop in silence. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there.
const NOT_OF_A_NAME = /[\x00-\x20\x7f#%/:<>?@[\\\]^|]/;

export const challengeOf = (domain: DomainName): string => `${CHALLENGE_LABEL}.${domain}`;

/** @param reserved names under which nobody has a domain of their own: that of shares */
export function parseDomainName(
  text: string,
  reserved: readonly string[],
): { readonly name: DomainName } | { readonly problem: string } {
  const name = asciiOf(text.replace(/\.$/, ''));
  if (name === undefined) return { problem: 'is no host name' };
  if (name.length > MAX_LENGTH) return { problem: `has more than ${MAX_LENGTH} characters` };
  const labels = name.split('.');
  if (labels.length < 2) return { problem: 'needs two labels or more, as in app.example.com' };
  if (!labels.every((label) => LABEL.test(label)))
    return { problem: 'is no host name: labels are letters, digits and hyphens, without a wildcard' };
  // RFC 5891 §4.2.3.1: two hyphens there are kept for A-labels.
  if (labels.some((label) => label.slice(2, 4) === '--' && !label.startsWith('xn--')))
    return { problem: 'is no host name: a label has hyphens in its third and fourth place' };
  // RFC 3696 §2: no top-level domain is a number; and with one it would be an address to some programs.
  if (/^\d/.test(labels.at(-1) ?? ''))
    return { problem: 'is an address, or no host name: its last label begins with a digit' };
  const under = reserved.find((domain) => name === domain || name.endsWith(`.${domain}`));
  if (under !== undefined) return { problem: `belongs to ${under}, where shares have their own addresses` };
  return { name: name as DomainName };
}

/** UTS #46, as browsers do. */
function asciiOf(text: string): string | undefined {
  if (text.length > 1_000 || NOT_OF_A_NAME.test(text)) return undefined;
  return URL.parse(`http://${text}`)?.hostname || undefined;
}
