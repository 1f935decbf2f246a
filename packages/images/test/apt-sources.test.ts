import { expect, test } from 'vitest';
import { debianSources, PUBLIC_SOURCES } from '../src/apt-sources.ts';

const one = (name: string, text: string): string => debianSources([{ name, text }]);

test('a mirror in deb822 form is used, without components and suites that are not the release', () => {
  const sources = one(
    'debian.sources',
    '# comment\nTypes: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates bookworm-backports\n' +
      'Components: main contrib\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n',
  );
  expect(sources).toContain(
    'URIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n',
  );
});

test('a mirror in one-line form is used', () => {
  const sources = one(
    'sources.list',
    '# deb http://old.example/debian bookworm main\ndeb [arch=amd64] http://mirror.example/debian bookworm main non-free\n' +
      'deb http://mirror.example/security bookworm-security main\ndeb-src http://mirror.example/debian bookworm main\n',
  );
  expect(sources).toContain('URIs: http://mirror.example/debian\nSuites: bookworm\n');
  expect(sources).toContain('URIs: http://mirror.example/security\nSuites: bookworm-security\n');
  expect(sources).not.toContain('old.example');
  expect(sources.match(/^Types: /gm)).toHaveLength(2);
});

test.each([
  ['another suite', 'vendor.list', 'deb http://vendor.example/apt stable main\n'],
  [
    'a key of its own',
    'vendor.list',
    'deb [signed-by=/etc/apt/keyrings/vendor.gpg] http://vendor.example/apt bookworm main\n',
  ],
  ['a component of its own', 'vendor.list', 'deb http://vendor.example/apt bookworm stable\n'],
  [
    'an inline key',
    'vendor.sources',
    'Types: deb\nURIs: http://vendor.example\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN PGP\n .\n',
  ],
  [
    'its entry switched off',
    'x.sources',
    'Enabled: no\nTypes: deb\nURIs: http://off.example\nSuites: bookworm\nComponents: main\n',
  ],
])('an entry with %s is left out, and the public archive is used', (_, name, text) => {
  expect(one(name, text)).toBe(PUBLIC_SOURCES);
});
