/** The daemon's configuration: every setting, read once. Nothing else reads the environment. docs/reference/configuration.md lists the same set. */
import { isIP } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { STEPS } from '@instavm/core';
import { parseCidrRule, parseDomainRule } from '@instavm/egress';
import { defaultCacheDirectory } from '@instavm/images';
import { isPreviewDomain } from '@instavm/preview';
import { z } from 'zod';

const LISTEN = /^(\[[0-9a-fA-F:]+\]|[^:[\]]+):(\d{1,5})$/;

/** `host:port`, with IPv6 addresses in brackets; port 0 takes a free one. */
const Listen = z.string().transform((text, context) => {
  const [, host, port] = LISTEN.exec(text) ?? [];
  if (host === undefined || Number(port) > 65_535) {
    context.addIssue({ code: 'custom', message: 'must be host:port, like 127.0.0.1:8787' });
    return z.NEVER;
  }
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) };
});

const Words = z.string().transform((text) => text.split(/[\s,]+/).filter((word) => word !== ''));

const DomainRules = Words.transform((rules, context) => {
  for (const rule of rules) {
    const parsed = parseDomainRule(rule);
    if ('problem' in parsed) context.addIssue({ code: 'custom', message: `${rule} ${parsed.problem}` });
  }
  return rules;
});

const Cidrs = Words.refine(
  (cidrs) => cidrs.every((cidr) => parseCidrRule(cidr) !== undefined),
  'must be ranges, like 10.0.0.0/8',
);

const SERVER_PORT = /^(?:\[(.+)\]|([^:]+)):(\d{1,5})$/;
const isServer = (text: string): boolean => {
  const [, ipv6, ipv4] = SERVER_PORT.exec(text) ?? [];
  return isIP(ipv6 ?? ipv4 ?? text) !== 0;
};

const UID_RANGE = /^(\d{1,10})-(\d{1,10})$/;
const MAX_UID = 2 ** 31 - 1;

/** `first-last`. */
const Uids = z.string().transform((text, context) => {
  const [, first, last] = (UID_RANGE.exec(text) ?? []).map(Number);
  if (first === undefined || last === undefined || first < 1 || last < first || last > MAX_UID) {
    context.addIssue({ code: 'custom', message: 'must be first-last, like 1900000000-1900009999' });
    return z.NEVER;
  }
  return { first, count: last - first + 1 };
});

const HttpProxy = z.string().transform((text, context) => {
  const url = URL.parse(text);
  if (url?.protocol === 'http:' && url.hostname !== '') return url;
  context.addIssue({ code: 'custom', message: 'must be http://[user:password@]host:port' });
  return z.NEVER;
});

export const SETTINGS = {
  INSTAVM_DATA_DIR: z
    .string()
    .min(1)
    .default(join(homedir(), '.local', 'share', 'instavm')),
  INSTAVM_CACHE_DIR: z.string().min(1).optional(),
  INSTAVM_LISTEN: Listen.prefault('127.0.0.1:8787'),
  /** Where previews are served over TLS; `off`: nowhere. */
  INSTAVM_PREVIEW_LISTEN: z.union([z.literal('off').transform(() => undefined), Listen]).prefault('127.0.0.1:8443'),
  /** Shares are `<share id>.<domain>`. */
  INSTAVM_PREVIEW_DOMAIN: z
    .string()
    .refine(isPreviewDomain, 'must be a host name of two labels or more, in lower case')
    .default('preview.localhost'),
  /** A certificate for `*.<domain>` and its key, PEM, read again when they change; without them, those of a local CA. */
  INSTAVM_PREVIEW_CERT: z.string().min(1).optional(),
  INSTAVM_PREVIEW_KEY: z.string().min(1).optional(),
  /** `fake` runs no guest: for tests of the daemon itself. */
  INSTAVM_VMM: z.enum(['auto', 'firecracker', 'qemu', 'fake']).default('auto'),
  /** Paths, or names on the search path. */
  INSTAVM_FIRECRACKER_BIN: z.string().min(1).default('firecracker'),
  INSTAVM_JAILER_BIN: z.string().min(1).default('jailer'),
  /** Users, and groups, of jails; nothing else on the host may have them. The default is a range that systemd leaves to nobody. */
  INSTAVM_FIRECRACKER_UIDS: Uids.prefault('1900000000-1900009999'),
  /** `auto` boots a probe guest to find out whether KVM works. */
  INSTAVM_ACCELERATOR: z.enum(['auto', 'kvm', 'tcg']).default('auto'),
  INSTAVM_LOG_LEVEL: z.enum(['silent', 'error', 'warn', 'info', 'debug']).default('info'),
  /** Sandboxes that may run at once in one account. */
  INSTAVM_MAX_SANDBOXES: z.coerce.number().int().min(1).max(10_000).default(100),
  /** What becomes of running sandboxes when the daemon is asked to stop. */
  INSTAVM_ON_STOP: z.enum(['keep', 'end']).default('keep'),
  /** MicroVMs of the default size that wait for a request. */
  INSTAVM_WARM_POOL: z.coerce.number().int().min(0).max(64).default(1),
  /** Below these the host takes no further microVM or snapshot. */
  INSTAVM_MEMORY_RESERVE_MB: z.coerce.number().int().min(0).default(512),
  INSTAVM_DISK_RESERVE_MB: z.coerce.number().int().min(0).default(1024),
  /** Snapshots that clients leave behind by habit (`sandbox-…`) go when unused for so long; 0 keeps them. */
  INSTAVM_SNAPSHOT_UNUSED_DAYS: z.coerce.number().min(0).default(7),
  /** What a sandbox may reach for which nobody sent a policy. */
  INSTAVM_EGRESS_DEFAULT: z.enum(['deny', 'packages', 'open']).default('packages'),
  /** Domain rules, separated by commas or spaces, that `allow_public_repos` stands for instead of the built-in list: a site's own mirrors. */
  INSTAVM_EGRESS_REGISTRIES: DomainRules.optional(),
  /** Address ranges that count as public for names and literals that a rule allows, though they are private or this host's: a site's own network. */
  INSTAVM_EGRESS_SITE_CIDRS: Cidrs.prefault(''),
  /** Address ranges that no policy may reach, whatever it says. */
  INSTAVM_EGRESS_FORBIDDEN_CIDRS: Cidrs.prefault(''),
  /** DNS servers of the gateway, `address[:port]`, separated by commas or spaces; default: the system's. */
  INSTAVM_EGRESS_DNS: Words.prefault('').refine(
    (servers) => servers.every(isServer),
    'must be addresses, like 10.0.0.2 or [fd00::2]:5353',
  ),
  /** The HTTP proxy through which the host itself reaches the outside. */
  INSTAVM_EGRESS_PROXY: HttpProxy.optional(),
  /** Open at once in one sandbox; the egress channel carries no more than 1,024. */
  INSTAVM_EGRESS_CONNECTIONS: z.coerce.number().int().min(1).max(1_024).default(1_024),
  /** Of one sandbox, both directions together; 0: no limit. */
  INSTAVM_EGRESS_MBIT: z.coerce.number().min(0).default(0),
  /** For tests of recovery: the daemon kills itself when it reaches this step. */
  INSTAVM_CRASH_AT: z.enum(STEPS).optional(),
} as const;

/** Settings of our clients and tools, which may stand in the same environment. */
const FOREIGN = /^INSTAVM_(API_KEY|BASE_URL|SSH_HOST|COOKBOOKS_\w+|TEST_\w+|TAPES_\w+|API_BASE|DEMO_\w+)$/;

export type Config = z.infer<z.ZodObject<typeof SETTINGS>> & { readonly INSTAVM_CACHE_DIR: string };

const ONE_OF_TWO = {
  code: 'custom',
  path: ['INSTAVM_PREVIEW_CERT'],
  message: 'goes with INSTAVM_PREVIEW_KEY: set both or neither',
} as const;

export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

/** @throws ConfigError that names every problem at once */
export function parseConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const own = Object.entries(env).filter(([name]) => name.startsWith('INSTAVM_') && !FOREIGN.test(name));
  const parsed = z.strictObject(SETTINGS).safeParse(Object.fromEntries(own));
  // Where setup leaves the images: the same rule for both.
  if (parsed.success) {
    const { INSTAVM_PREVIEW_CERT: cert, INSTAVM_PREVIEW_KEY: key } = parsed.data;
    if ((cert === undefined) === (key === undefined))
      return { ...parsed.data, INSTAVM_CACHE_DIR: defaultCacheDirectory(env) };
  }
  const issues = parsed.error?.issues ?? [ONE_OF_TWO];
  const problems = issues.map((issue) =>
    issue.code === 'unrecognized_keys'
      ? `${issue.keys.join(', ')}: no such setting`
      : `${issue.path.join('.')}: ${issue.message}`,
  );
  throw new ConfigError(
    `the configuration is not usable:\n  ${problems.join('\n  ')}\nSee docs/reference/configuration.md`,
  );
}
