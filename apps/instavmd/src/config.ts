/**
 * The daemon's configuration: every setting, read once, from the environment and a file (`config-sources.ts`). Nothing else reads the
 * environment. docs/reference/configuration.md lists the same set.
 */
import { isIP } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { STEPS } from '@instavm/core';
import { parseCidrRule, parseDomainRule } from '@instavm/egress';
import { defaultCacheDirectory } from '@instavm/images';
import { isPreviewDomain } from '@instavm/preview';
import { z } from 'zod';
import { CONFIG_FILE, type Environment, type Given, gather, inFile } from './config-sources.ts';
import type { ServiceManagerEnvironment } from './operations/service-manager.ts';

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

/** DNS servers. */
const Servers = Words.refine(
  (servers) => servers.every(isServer),
  'must be addresses, like 10.0.0.2 or [fd00::2]:5353',
);

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

const PublicUrl = z.string().transform((text, context) => {
  const url = URL.parse(text);
  if ((url?.protocol === 'https:' || url?.protocol === 'http:') && `${url.origin}/` === url.href) return url;
  context.addIssue({ code: 'custom', message: 'must be a URL without a path, like https://instavm.example.com' });
  return z.NEVER;
});

/** A setting that was left empty is a slip, and no zero. */
const numeric = <T extends z.ZodType<unknown, number>>(range: T) =>
  z
    .string()
    .regex(/^\d+(\.\d+)?$/, 'must be a number')
    .transform(Number)
    .pipe(range);

const Amount = numeric(z.number().int().min(0).max(1e9));

/** Dollars, as micro-dollars. */
const Dollars = (mostDollars: number) => {
  const micro = (dollars: number): number => Math.round(dollars * 1e6);
  return numeric(z.number().min(0).max(mostDollars).transform(micro));
};

export const SETTINGS = {
  /** A file with the other settings; `--config` on the command line is the same. */
  [CONFIG_FILE]: z.string().min(1).optional(),
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
  /** Directory URL of a certificate authority (RFC 8555) that is to issue certificates; setting it agrees to the authority's terms of service. */
  INSTAVM_ACME_DIRECTORY: z.url({ protocol: /^https$/, error: 'must be an https URL' }).optional(),
  /** Where the authority writes to about the account. */
  INSTAVM_ACME_EMAIL: z.email().optional(),
  /** PEM file to trust for the authority's own address: of a private one. */
  INSTAVM_ACME_CA: z.string().min(1).optional(),
  /** External account binding, where the authority wants it: key id, and HMAC key in base64url. */
  INSTAVM_ACME_EAB_KID: z.string().min(1).optional(),
  INSTAVM_ACME_EAB_HMAC: z
    .string()
    .regex(/^[\w+/-]{16,}={0,2}$/, 'must be base64url')
    .optional(),
  /** Where HTTP-01 is answered, which authorities ask on port 80, and everything else led to https. */
  INSTAVM_ACME_HTTP_LISTEN: Listen.optional(),
  /** Program for DNS-01, run as `HOOK add|remove _acme-challenge.NAME VALUE`; with it the certificate of the preview domain is ordered, too. */
  INSTAVM_ACME_DNS_HOOK: z.string().startsWith('/', 'must be an absolute path').optional(),
  /** DNS servers that are asked whose a custom domain is, `address[:port]`, separated by commas or spaces; default: the system's. */
  INSTAVM_DOMAIN_DNS_SERVERS: Servers.prefault(''),
  /** Where browsers reach this server, when that is neither an address of the host nor `localhost`. */
  INSTAVM_PUBLIC_URL: PublicUrl.optional(),
  /** Address ranges of proxies in front of this server, whose X-Forwarded-For says for whom they ask. */
  INSTAVM_TRUSTED_PROXIES: Cidrs.prefault(''),
  /** Who may make an account. */
  INSTAVM_SIGN_UP: z.enum(['open', 'invitation', 'closed']).default('closed'),
  /** `fake` runs no guest: for tests of the daemon itself. */
  INSTAVM_VMM: z.enum(['auto', 'firecracker', 'qemu', 'fake']).default('auto'),
  /** `on`: the daemon starts only where microVMs are jailed under KVM on a host that is fit for strangers' code. */
  INSTAVM_PRODUCTION: z.enum(['off', 'on']).default('off'),
  /** Paths, or names on the search path. */
  INSTAVM_FIRECRACKER_BIN: z.string().min(1).default('firecracker'),
  INSTAVM_JAILER_BIN: z.string().min(1).default('jailer'),
  INSTAVM_QEMU_BIN: z.string().min(1).default('qemu-system-x86_64'),
  /** Users, and groups, of microVMs where the daemon is root; nothing else on the host may have them. The default is a range that systemd leaves to nobody. */
  INSTAVM_VMM_UIDS: Uids.prefault('1900000000-1900009999'),
  /** `auto` boots a probe guest to find out whether KVM works. */
  INSTAVM_ACCELERATOR: z.enum(['auto', 'kvm', 'tcg']).default('auto'),
  /** Opens `/metrics` to who sends it. */
  INSTAVM_METRICS_TOKEN: z.string().min(16, 'must be 16 characters or more').optional(),
  INSTAVM_LOG_LEVEL: z.enum(['silent', 'error', 'warn', 'info', 'debug']).default('info'),
  INSTAVM_LOG_FORMAT: z.enum(['json', 'text']).default('json'),
  /** Sandboxes that may run at once in one account. */
  INSTAVM_MAX_SANDBOXES: numeric(z.number().int().min(1).max(10_000)).default(100),
  /** Of all that runs in one account. */
  INSTAVM_MAX_VCPUS: Amount.default(800),
  INSTAVM_MAX_MEMORY_MB: Amount.default(819_200),
  /** Of one account. */
  INSTAVM_MAX_SNAPSHOTS: Amount.default(10_000),
  /** Of snapshots and of what suspended sandboxes keep, in one account. */
  INSTAVM_MAX_STORAGE_MB: Amount.default(1_048_576),
  /** Sandboxes that one account may make, and requests that it may send. */
  INSTAVM_CREATES_PER_MINUTE: Amount.default(6_000),
  INSTAVM_REQUESTS_PER_MINUTE: Amount.default(120_000),
  /** `enforce`: an account without credit runs nothing. What is used is counted either way. */
  INSTAVM_CREDIT: z.enum(['off', 'enforce']).default('off'),
  /** What every account is given once. */
  INSTAVM_CREDIT_WELCOME: Dollars(1e6).prefault('50'),
  /** Of one vCPU, and of one GiB of memory, while a sandbox runs. */
  INSTAVM_RATE_VCPU_HOUR: Dollars(1_000).prefault('0.05'),
  INSTAVM_RATE_MEMORY_GIB_HOUR: Dollars(1_000).prefault('0.016'),
  /** Of snapshots, and of what suspended sandboxes keep. */
  INSTAVM_RATE_STORAGE_GIB_HOUR: Dollars(1_000).prefault('0.0001'),
  /** Of bytes that sandboxes send out. */
  INSTAVM_RATE_EGRESS_GIB: Dollars(1_000).prefault('0.05'),
  /** How often use is written down, and credit looked at. */
  INSTAVM_METER_SECONDS: numeric(z.number().min(0.1).max(60)).default(10),
  /** How long audit events are kept, and how many of one account. */
  INSTAVM_AUDIT_DAYS: numeric(z.number().int().min(1).max(36_500)).default(365),
  INSTAVM_AUDIT_EVENTS: numeric(z.number().int().min(100).max(10_000_000)).default(100_000),
  /** What becomes of running sandboxes when the daemon is asked to stop. */
  INSTAVM_ON_STOP: z.enum(['keep', 'end']).default('keep'),
  /** MicroVMs of the default size that wait for a request. */
  INSTAVM_WARM_POOL: numeric(z.number().int().min(0).max(64)).default(1),
  /** Below these the host takes no further microVM or snapshot. */
  INSTAVM_MEMORY_RESERVE_MB: numeric(z.number().int().min(0)).default(512),
  INSTAVM_DISK_RESERVE_MB: numeric(z.number().int().min(0)).default(1024),
  /** Snapshots that clients leave behind by habit (`sandbox-…`) go when unused for so long; 0 keeps them. */
  INSTAVM_SNAPSHOT_UNUSED_DAYS: numeric(z.number().min(0)).default(7),
  /** What a sandbox may reach for which nobody sent a policy. */
  INSTAVM_EGRESS_DEFAULT: z.enum(['deny', 'packages', 'open']).default('packages'),
  /** Domain rules, separated by commas or spaces, that `allow_public_repos` stands for instead of the built-in list: a site's own mirrors. */
  INSTAVM_EGRESS_REGISTRIES: DomainRules.optional(),
  /** Address ranges that count as public for names and literals that a rule allows, though they are private or this host's: a site's own network. */
  INSTAVM_EGRESS_SITE_CIDRS: Cidrs.prefault(''),
  /** Address ranges that no policy may reach, whatever it says. */
  INSTAVM_EGRESS_FORBIDDEN_CIDRS: Cidrs.prefault(''),
  /** DNS servers of the gateway, `address[:port]`, separated by commas or spaces; default: the system's. */
  INSTAVM_EGRESS_DNS: Servers.prefault(''),
  /** The HTTP proxy through which the host itself reaches the outside. */
  INSTAVM_EGRESS_PROXY: HttpProxy.optional(),
  /** Open at once in one sandbox; the egress channel carries no more than 1,024. */
  INSTAVM_EGRESS_CONNECTIONS: numeric(z.number().int().min(1).max(1_024)).default(1_024),
  /** Of one sandbox, both directions together; 0: no limit. */
  INSTAVM_EGRESS_MBIT: numeric(z.number().min(0)).default(0),
  /** Of each disk of a sandbox, reads and writes together; 0: no limit. */
  INSTAVM_DISK_MB_PER_SECOND: Amount.default(1_000),
  INSTAVM_DISK_IOPS: Amount.default(50_000),
  /** For tests of recovery: the daemon kills itself when it reaches this step. */
  INSTAVM_CRASH_AT: z.enum(STEPS).optional(),
} as const;

/** Shown to nobody. `<name>_FILE` may name a file that holds one. */
export const SECRETS = [
  'INSTAVM_ACME_EAB_HMAC',
  'INSTAVM_EGRESS_PROXY',
  'INSTAVM_METRICS_TOKEN',
] as const satisfies (keyof typeof SETTINGS)[];

export type Config = z.infer<z.ZodObject<typeof SETTINGS>> & { readonly INSTAVM_CACHE_DIR: string };

/** The first means nothing without the second. */
const NEEDS: readonly (readonly [keyof Config, keyof Config])[] = [
  ['INSTAVM_PREVIEW_CERT', 'INSTAVM_PREVIEW_KEY'],
  ['INSTAVM_PREVIEW_KEY', 'INSTAVM_PREVIEW_CERT'],
  ['INSTAVM_ACME_EMAIL', 'INSTAVM_ACME_DIRECTORY'],
  ['INSTAVM_ACME_CA', 'INSTAVM_ACME_DIRECTORY'],
  ['INSTAVM_ACME_HTTP_LISTEN', 'INSTAVM_ACME_DIRECTORY'],
  ['INSTAVM_ACME_DNS_HOOK', 'INSTAVM_ACME_DIRECTORY'],
  ['INSTAVM_ACME_EAB_KID', 'INSTAVM_ACME_DIRECTORY'],
  ['INSTAVM_ACME_EAB_KID', 'INSTAVM_ACME_EAB_HMAC'],
  ['INSTAVM_ACME_EAB_HMAC', 'INSTAVM_ACME_EAB_KID'],
  ['INSTAVM_ACME_DIRECTORY', 'INSTAVM_PREVIEW_LISTEN'],
];

/** @returns undefined where no service manager waits for news */
export function serviceManagerOf({ NOTIFY_SOCKET, WATCHDOG_USEC }: Environment): ServiceManagerEnvironment | undefined {
  if (NOTIFY_SOCKET === undefined || NOTIFY_SOCKET === '') return undefined;
  const watchdogMs = Number(WATCHDOG_USEC) / 1_000;
  return { notifySocket: NOTIFY_SOCKET, watchdogMs: watchdogMs > 0 ? watchdogMs : undefined };
}

/** Of OpenTelemetry's own variables, which mean here what they mean everywhere; the exporter reads those of the endpoint. */
export type TracingEnvironment = {
  /** Of requests whose callers do not say. */
  readonly ratio: number;
  readonly serviceName: string;
};

/** @returns undefined where nobody wants traces. @throws ConfigError */
export function tracingOf(env: Environment): TracingEnvironment | undefined {
  const { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: ofTraces } = env;
  if ((!endpoint && !ofTraces) || env.OTEL_SDK_DISABLED === 'true' || env.OTEL_TRACES_EXPORTER === 'none')
    return undefined;
  const ratio = Number(env.OTEL_TRACES_SAMPLER_ARG ?? 1);
  if (!(ratio >= 0 && ratio <= 1)) throw new ConfigError('OTEL_TRACES_SAMPLER_ARG: must be a number from 0 to 1');
  return { ratio, serviceName: env.OTEL_SERVICE_NAME || 'instavmd' };
}

export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

const KNOWN = { names: Object.keys(SETTINGS), secrets: SECRETS };

/**
 * @param path of the file; undefined: as INSTAVM_CONFIG says
 * @throws ConfigError that names every problem at once, each with where it is
 */
export function parseConfig(env: Environment, path?: string): Config {
  const { given, problems } = gather(env, KNOWN, path);
  const texts = Object.fromEntries([...given].map(([name, { text }]) => [name, text]));
  const parsed = z.strictObject(SETTINGS).safeParse(texts);
  const lacking = parsed.success
    ? NEEDS.filter(([name, other]) => parsed.data[name] !== undefined && parsed.data[other] === undefined)
    : [];
  const originOf = (name: string): string => given.get(name)?.origin ?? name;
  const all = [
    ...problems,
    ...(parsed.error?.issues ?? []).map(({ path, message }) => `${originOf(path.join('.'))}: ${message}`),
    ...lacking.map(([name, other]) => `${originOf(name)}: needs ${other}`),
  ];
  if (!parsed.success || all.length > 0)
    throw new ConfigError(
      `the configuration is not usable:\n  ${all.join('\n  ')}\nSee docs/reference/configuration.md`,
    );
  // Where setup leaves the images: the same rule for both.
  return { ...parsed.data, INSTAVM_CACHE_DIR: parsed.data.INSTAVM_CACHE_DIR ?? defaultCacheDirectory(env) };
}

/** What holds, as a file that the daemon would read, with secrets left out. @throws ConfigError */
export function printConfig(env: Environment, path?: string): string {
  parseConfig(env, path);
  const { given } = gather(env, KNOWN, path);
  const line = (name: string): string => {
    const key = inFile(name);
    const value = given.get(name);
    if (value === undefined) return `# ${key}: ${defaultOf(name)}`;
    if ((SECRETS as readonly string[]).includes(name)) return `# ${key}: (a secret)  # ${whence(value)}`;
    return `${key}: ${JSON.stringify(value.text)}  # ${whence(value)}`;
  };
  const names = KNOWN.names.filter((name) => name !== CONFIG_FILE);
  return `# What is commented out is not set; its default holds.\n${names.map(line).join('\n')}\n`;
}

const whence = ({ origin, source }: Given): string => (source === 'file' ? origin : 'environment');

function defaultOf(name: string): string {
  const { defaultValue } = SETTINGS[name as keyof typeof SETTINGS].def as { readonly defaultValue?: unknown };
  return defaultValue === undefined ? '' : JSON.stringify(defaultValue);
}
