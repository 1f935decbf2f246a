/** The one spelling of each custom domain. Which host names can be one, and whose they are, is not for here. */

declare const brand: unique symbol;
/** Lower case, internationalized labels as A-labels, no dot at the end. */
export type DomainName = string & { readonly [brand]: 'DomainName' };

/** Below a domain: where its owner says whose it is here. */
const CHALLENGE_LABEL = '_instavm-challenge';
/** RFC 1035 §2.3.4: 253 characters with the longest name below it that somebody asks for. */
const MAX_LENGTH = 253 - CHALLENGE_LABEL.length - 1;
/** What a URL would take for something else than a part of its host, or drop in silence. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there.
const NOT_OF_A_NAME = /[\x00-\x20\x7f#%/:<>?@[\\\]^|]/;

export const challengeOf = (domain: DomainName): string => `${CHALLENGE_LABEL}.${domain}`;

/** @param problemOf says what keeps a name in that spelling from being a custom domain, as the end of a sentence that begins with it */
export function parseDomainName(
  text: string,
  problemOf: (name: string) => string | undefined,
): { readonly name: DomainName } | { readonly problem: string } {
  const name = asciiOf(text.replace(/\.$/, ''));
  if (name === undefined) return { problem: 'is no host name' };
  if (name.length > MAX_LENGTH) return { problem: `is longer than ${MAX_LENGTH} characters` };
  const problem = problemOf(name);
  return problem === undefined ? { name: name as DomainName } : { problem };
}

/** UTS #46, as browsers do. */
function asciiOf(text: string): string | undefined {
  if (text.length > 1_000 || NOT_OF_A_NAME.test(text)) return undefined;
  return URL.parse(`http://${text}`)?.hostname || undefined;
}
