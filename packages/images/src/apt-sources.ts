/**
 * Where the base image's packages come from: the Debian archive as this machine's apt is set up to reach it (a mirror, a
 * proxy), and nothing else that the machine may have added, so that every machine builds the same release. Pure.
 */

const RELEASE = 'bookworm';
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const SUITES = new Set([RELEASE, `${RELEASE}-updates`, `${RELEASE}-security`]);

export type AptSourceFile = { readonly name: string; readonly text: string };

/** The public archive: the fallback for the build, and what `apt` inside a sandbox is set to. */
export const PUBLIC_SOURCES = stanza('http://deb.debian.org/debian', [RELEASE, `${RELEASE}-updates`]).concat(
  '\n',
  stanza('http://deb.debian.org/debian-security', [`${RELEASE}-security`]),
);

/**
 * @param files the machine's `*.list` and `*.sources` files
 * @returns deb822 text with the Debian release entries, or the public archive when there are none
 */
export function debianSources(files: readonly AptSourceFile[]): string {
  const found = files.flatMap(({ name, text }) => (name.endsWith('.sources') ? fromDeb822(text) : fromOneLine(text)));
  return found.some((entry) => entry.suites.includes(RELEASE))
    ? found.map((entry) => stanza(entry.uris, entry.suites)).join('\n')
    : PUBLIC_SOURCES;
}

type Entry = { readonly uris: string; readonly suites: readonly string[] };

function fromDeb822(text: string): Entry[] {
  return text.split(/\n\s*\n/).flatMap((block) => {
    const fields = new Map<string, string>();
    let key = '';
    for (const line of block.split('\n').filter((line) => !line.startsWith('#'))) {
      const field = /^([A-Za-z-]+):(.*)$/.exec(line);
      if (field?.[1]) key = field[1].toLowerCase();
      fields.set(key, `${fields.get(key) ?? ''} ${field ? field[2] : line}`.trim());
    }
    const words = (name: string): string[] => (fields.get(name) ?? '').split(/\s+/).filter(Boolean);
    if (fields.get('enabled')?.toLowerCase() === 'no' || !words('types').includes('deb')) return [];
    return debianEntry(words('uris').join(' '), words('suites'), words('components'), fields.get('signed-by'));
  });
}

function fromOneLine(text: string): Entry[] {
  return text.split('\n').flatMap((line) => {
    const parts = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)/.exec(line);
    if (!parts) return [];
    const [, options = '', uri = '', suite = '', components = ''] = parts;
    return debianEntry(uri, [suite], components.trim().split(/\s+/), /signed-by=(\S+)/.exec(options)?.[1]);
  });
}

/** Other vendors also call their suites by Debian's release names; what gives them away is a key of their own. */
function debianEntry(uris: string, suites: string[], components: string[], signedBy: string | undefined): Entry[] {
  const ours = suites.filter((suite) => SUITES.has(suite));
  const signedByDebian = signedBy === undefined || signedBy.includes('debian-archive');
  return uris && ours.length > 0 && components.includes('main') && signedByDebian ? [{ uris, suites: ours }] : [];
}

function stanza(uris: string, suites: readonly string[]): string {
  return `Types: deb\nURIs: ${uris}\nSuites: ${suites.join(' ')}\nComponents: main\nSigned-By: ${KEYRING}\n`;
}
