/** Which names a certificate is ordered for: what a certificate authority would take, and nothing that is ours already. */
import { domainToASCII, domainToUnicode } from 'node:url';

const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const MAX_NAME_CHARS = 253;

/**
 * What keeps a text from being a custom domain.
 * @returns the end of a sentence that starts with the name; undefined when it is a host name in lower case, internationalized labels as A-labels
 *   (RFC 5890), of two labels or more, and neither under the preview domain nor above it
 */
export function domainNameProblem(domain: string, previewDomain: string): string | undefined {
  if (domain.length > MAX_NAME_CHARS) return `is longer than ${MAX_NAME_CHARS} characters`;
  const labels = domain.split('.');
  const last = labels.at(-1) ?? '';
  if (labels.some((label) => !LABEL.test(label))) {
    return 'is no host name in lower case; write names in other scripts in their xn-- form';
  }
  if (labels.length < 2) return 'needs two labels or more';
  if (/^\d/.test(last)) return 'is an address or no host name; its last label starts with a digit';
  if (labels.some(isDamagedLabel)) {
    return 'has a label that is no internationalized name';
  }
  if (domain === previewDomain || domain.endsWith(`.${previewDomain}`)) return 'belongs to the preview domain';
  if (previewDomain.endsWith(`.${domain}`))
    return 'is above the preview domain, so its cookies would reach every share';
  return undefined;
}

/** Two hyphens in third and fourth place are kept for A-labels (RFC 5891 §4.2.3.1); what cannot be decoded stays as it is. */
function isDamagedLabel(label: string): boolean {
  if (label.slice(2, 4) !== '--') return false;
  const decoded = domainToUnicode(label);
  return !label.startsWith('xn--') || decoded === label || domainToASCII(decoded) !== label;
}
