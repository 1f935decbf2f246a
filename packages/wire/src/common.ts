/** Pieces that several routes share. */
import { z } from 'zod';

export const ErrorResponse = z
  .object({
    detail: z.string(),
    code: z.string(),
    retryable: z.enum(['no', 'yes', 'unknown']),
    hint: z.string(),
    request_id: z.string(),
    details: z.record(z.string(), z.unknown()).optional(),
  })
  .meta({ id: 'Error', description: 'Every failure. `detail` is for people, `code` for programs.' });

const MAX_ENV_ENTRIES = 256;
/** A quarter of what execve(2) takes at most, so that a command has room for its own. */
const MAX_ENV_LENGTH = 512 * 1024;
const MAX_METADATA_BYTES = 16 * 1024;
/** Far less than what SQLite reads of JSON (SQLITE_JSON_MAX_DEPTH, 1,000): a list by metadata must not fail on a row. */
const MAX_METADATA_DEPTH = 32;

/** Values are data: any text without NUL. */
export const Env = z
  .record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'not an environment variable name'), noNul(64 * 1024))
  .refine((env) => Object.keys(env).length <= MAX_ENV_ENTRIES, `at most ${MAX_ENV_ENTRIES} variables`)
  .refine(
    (env) => Object.entries(env).reduce((sum, [name, value]) => sum + name.length + value.length, 0) <= MAX_ENV_LENGTH,
    `at most ${MAX_ENV_LENGTH} characters in all`,
  );

export const Metadata = z
  .record(z.string(), z.unknown())
  .refine((metadata) => isNested(metadata, MAX_METADATA_DEPTH), {
    error: `at most ${MAX_METADATA_DEPTH} levels deep`,
    abort: true,
  })
  .refine((metadata) => jsonBytes(metadata) <= MAX_METADATA_BYTES, `at most ${MAX_METADATA_BYTES} bytes of JSON`);

/** Whether it is nested so deep at most. */
function isNested(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return true;
  return levels > 0 && Object.values(value).every((each) => isNested(each, levels - 1));
}

const jsonBytes = (value: unknown): number => new TextEncoder().encode(JSON.stringify(value)).length;

export const LifetimeSeconds = z.number().int().min(20).max(86_400);
export const MemoryMb = z.number().int().min(128).max(8192);
export const VcpuCount = z.union([z.literal(1), z.literal(2), z.literal(4), z.literal(6), z.literal(8)]);

/** Text for a guest: a NUL would end it early there. */
export function noNul(maxLength: number) {
  return z
    .string()
    .max(maxLength)
    .regex(/^[^\0]*$/, 'holds a NUL character');
}

/** Control characters, and those that turn the direction of writing: with them text could pass for other text (Unicode TR 36 §2.5.2). */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there.
const DECEPTIVE = /[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/;

/** Shown to people in tables, pages and terminals. */
export const plainText = (maxLength: number) =>
  z
    .string()
    .max(maxLength)
    .refine((text) => !DECEPTIVE.test(text), 'holds a control character');

/** What is left of text that may be anything. */
export const plain = (text: string): string => text.replaceAll(new RegExp(DECEPTIVE, 'g'), '');

export const GuestPath = noNul(4096).regex(/^\//, 'must be an absolute path');

export const SnapshotName = noNul(200).min(1);

const MAX_EGRESS_RULES = 10_000;
const EgressRule = noNul(255);

/** What an entry means, and whether it means anything, is for the policy to say (docs/reference/egress-policy.md). */
export const egressLists = {
  allowed_domains: z.array(EgressRule).max(MAX_EGRESS_RULES),
  allowed_cidrs: z.array(EgressRule).max(MAX_EGRESS_RULES),
};

/** Query strings carry text only. */
export const QueryBoolean = z.enum(['true', 'false']).transform((text) => text === 'true');
export const QueryList = z
  .union([z.string(), z.array(z.string())])
  .transform((value) => (Array.isArray(value) ? value : [value]));

/** Signals that a client may send to a command or a terminal, with their numbers on Linux x86-64 (signal(7)). */
export const SIGNALS = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGKILL: 9,
  SIGUSR1: 10,
  SIGUSR2: 12,
  SIGTERM: 15,
  SIGCONT: 18,
  SIGSTOP: 19,
  SIGTSTP: 20,
  SIGWINCH: 28,
} as const;
export const SignalName = z.enum(Object.keys(SIGNALS) as [keyof typeof SIGNALS, ...(keyof typeof SIGNALS)[]]);
