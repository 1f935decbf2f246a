/**
 * What `allow_public_repos` allows when the daemon's configuration names nothing else: hosts that package managers load from, on ports 80 and 443.
 * docs/reference/egress-policy.md lists the same, and a test holds the two together.
 *
 * A host belongs here when a package manager in its default configuration asks it. General object stores (`storage.googleapis.com`,
 * `*.amazonaws.com`) do not, even where a registry uses one: anybody can write there.
 */

export type RegistryGroup = { readonly group: string; readonly domains: readonly string[] };

/** Of rules that give no port. */
export const REGISTRY_PORTS: readonly number[] = [80, 443];

export const REGISTRY_GROUPS: readonly RegistryGroup[] = [
  { group: 'Python', domains: ['pypi.org', 'files.pythonhosted.org', 'pypi.python.org', 'bootstrap.pypa.io'] },
  { group: 'Conda', domains: ['conda.anaconda.org', 'repo.anaconda.com'] },
  {
    group: 'Node.js',
    domains: ['registry.npmjs.org', 'registry.npmjs.com', 'registry.yarnpkg.com', 'repo.yarnpkg.com', 'nodejs.org'],
  },
  { group: 'Rust', domains: ['crates.io', 'index.crates.io', 'static.crates.io', 'static.rust-lang.org'] },
  { group: 'Go', domains: ['proxy.golang.org', 'sum.golang.org'] },
  {
    group: 'Java',
    domains: [
      'repo.maven.apache.org',
      'repo1.maven.org',
      'plugins.gradle.org',
      'plugins-artifacts.gradle.org',
      'services.gradle.org',
      'downloads.gradle.org',
    ],
  },
  { group: 'Ruby', domains: ['rubygems.org', 'index.rubygems.org'] },
  { group: 'PHP', domains: ['packagist.org', 'repo.packagist.org', 'getcomposer.org'] },
  { group: '.NET', domains: ['api.nuget.org', 'www.nuget.org'] },
  {
    // No `*.deb.debian.org`: apt would be told of hosts of a CDN by `_http._tcp.deb.debian.org`, which are not in this list.
    group: 'Debian',
    domains: ['deb.debian.org', 'security.debian.org', 'ftp.debian.org', 'archive.debian.org', 'snapshot.debian.org'],
  },
  {
    group: 'Ubuntu',
    domains: [
      'archive.ubuntu.com',
      '*.archive.ubuntu.com',
      'security.ubuntu.com',
      'ports.ubuntu.com',
      'ppa.launchpadcontent.net',
    ],
  },
  { group: 'Alpine', domains: ['dl-cdn.alpinelinux.org'] },
  {
    group: 'GitHub',
    domains: [
      'github.com',
      'codeload.github.com',
      'raw.githubusercontent.com',
      'objects.githubusercontent.com',
      'release-assets.githubusercontent.com',
    ],
  },
];

/** As domain rules. */
export const PUBLIC_REGISTRIES: readonly string[] = REGISTRY_GROUPS.flatMap(({ domains }) => domains);
