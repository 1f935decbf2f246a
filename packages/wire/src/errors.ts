/**
 * The error catalog of the public API: every code with its HTTP status, what a retry would do, and the next thing to type or
 * do. Exhaustive by type: a forgotten code does not compile. docs/reference/errors.md lists the same set, and a test holds them together.
 */

/** `unknown`: the command may have run. */
export type Retryable = 'no' | 'yes' | 'unknown';

export type ErrorCode = keyof typeof CATALOG;

type Entry = { readonly status: number; readonly retryable: Retryable; readonly hint: string };

const CATALOG = {
  // caller
  invalid_argument: { status: 422, retryable: 'no', hint: 'Correct the named field; GET /docs shows every route.' },
  malformed_request: { status: 400, retryable: 'no', hint: 'GET /docs shows what each route takes.' },
  body_too_large: { status: 413, retryable: 'no', hint: 'Send large contents through the streaming file routes.' },
  unsupported: { status: 501, retryable: 'no', hint: 'See CHANGELOG.md for what this version offers.' },
  not_available: { status: 403, retryable: 'no', hint: 'This server does not offer the feature.' },
  route_not_found: { status: 404, retryable: 'no', hint: 'GET /docs shows every route.' },
  invalid_path: { status: 422, retryable: 'no', hint: 'Give an absolute path of at most 4096 bytes without NUL.' },
  user_unknown: { status: 422, retryable: 'no', hint: 'Create the user first, for example with useradd.' },
  group_unknown: { status: 422, retryable: 'no', hint: 'Create the group first, for example with groupadd.' },
  cwd_not_found: { status: 422, retryable: 'no', hint: 'Create the directory, or leave cwd out.' },
  command_not_found: { status: 422, retryable: 'no', hint: 'Check the name, or run it through a shell script.' },
  archive_invalid: {
    status: 422,
    retryable: 'no',
    hint: 'Send an uncompressed tar with relative names, without "..", devices or FIFOs.',
  },
  archive_limit: { status: 413, retryable: 'no', hint: 'Raise max_bytes or max_entries, or send less.' },
  // identity
  unauthenticated: { status: 401, retryable: 'no', hint: 'Send the API key in the X-API-Key header.' },
  sign_in_failed: { status: 401, retryable: 'no', hint: 'Check what was typed, or run: npx instavm dashboard' },
  cross_origin: {
    status: 403,
    retryable: 'no',
    hint: 'Open the dashboard under its own address (INSTAVM_PUBLIC_URL), or use an API key.',
  },
  sign_up_closed: { status: 403, retryable: 'no', hint: 'Ask the administrator for an account.' },
  invitation_invalid: { status: 403, retryable: 'no', hint: 'Ask the administrator for a new invitation.' },
  pairing_not_found: { status: 404, retryable: 'no', hint: 'Run the login command again.' },
  permission_denied: { status: 403, retryable: 'no', hint: 'Use a key with the right for this.' },
  account_not_found: { status: 404, retryable: 'no', hint: 'Give the e-mail address or the id of the account.' },
  key_not_found: { status: 404, retryable: 'no', hint: 'List the keys of the account with GET /v1/api-keys/.' },
  event_not_found: { status: 404, retryable: 'no', hint: 'List the events that are kept with GET /v1/audit/events.' },
  // egress
  egress_denied: {
    status: 403,
    retryable: 'no',
    hint: 'The rule is in details; allow the host in the egress policy of the sandbox.',
  },
  // absence
  sandbox_not_found: { status: 404, retryable: 'no', hint: 'Create a sandbox, or list those that exist.' },
  incarnation_not_found: { status: 404, retryable: 'no', hint: 'List the running ones with GET /v1/vms.' },
  execution_not_found: {
    status: 404,
    retryable: 'no',
    hint: 'Results of asynchronous executions are kept for an hour.',
  },
  file_not_found: { status: 404, retryable: 'no', hint: 'Check the path; relative ones are not accepted.' },
  pty_not_found: { status: 404, retryable: 'no', hint: 'List the terminals of the sandbox, or create one.' },
  lease_expired: { status: 410, retryable: 'no', hint: 'Create a sandbox with a longer lifetime.' },
  snapshot_not_found: { status: 404, retryable: 'no', hint: 'List the snapshots that exist with GET /v1/snapshots.' },
  share_not_found: {
    status: 404,
    retryable: 'no',
    hint: 'Ask its owner for the address, or list your shares with GET /v1/shares.',
  },
  domain_not_found: {
    status: 404,
    retryable: 'no',
    hint: 'List your custom domains with GET /v1/custom-domains.',
  },
  // custom domains
  domain_taken: {
    status: 409,
    retryable: 'no',
    hint: 'Use another host name, or have the other one deleted.',
  },
  domain_unverified: {
    status: 409,
    retryable: 'yes',
    hint: 'Create the TXT record in the DNS of the domain, wait until it is published, then verify again.',
  },
  // previews
  misdirected_request: { status: 421, retryable: 'no', hint: 'Open the share by its own address.' },
  url_too_long: { status: 414, retryable: 'no', hint: 'Send long values in the body of the request.' },
  headers_too_large: { status: 431, retryable: 'no', hint: 'Send fewer or smaller headers and cookies.' },
  port_not_listening: {
    status: 502,
    retryable: 'yes',
    hint: 'Start the service in the sandbox, listening on this port of 127.0.0.1, ::1 or all addresses.',
  },
  service_failed: {
    status: 502,
    retryable: 'unknown',
    hint: 'The service in the sandbox ended the connection or sent no valid HTTP; see its output.',
  },
  service_timeout: {
    status: 504,
    retryable: 'unknown',
    hint: 'The service in the sandbox does not answer; see its output.',
  },
  certificate_failed: {
    status: 502,
    retryable: 'yes',
    hint: "Do what the certificate authority's reason asks for, such as pointing the domain at this server; then verify it again.",
  },
  // state
  invalid_state: { status: 409, retryable: 'no', hint: 'See the state in details.' },
  sandbox_suspended: { status: 409, retryable: 'no', hint: 'Resume it first, or let it be resumed with auto_resume.' },
  snapshot_not_ready: { status: 409, retryable: 'no', hint: 'Ask for it until its status is ready or failed.' },
  snapshot_incompatible: {
    status: 409,
    retryable: 'no',
    hint: 'Restore it where it was made, or make a new one: its template, VMM or CPU is not here.',
  },
  pty_exists: { status: 409, retryable: 'no', hint: 'Take another id, or delete that terminal first.' },
  email_taken: { status: 409, retryable: 'no', hint: 'Sign in instead, or take another address.' },
  conflict: { status: 409, retryable: 'yes', hint: 'Read the current state and try again.' },
  file_permission_denied: {
    status: 403,
    retryable: 'no',
    hint: "Act as a user with the right, with the 'user' parameter.",
  },
  path_escape: { status: 403, retryable: 'no', hint: "Stay inside the directories given as 'within'." },
  file_exists: { status: 409, retryable: 'no', hint: 'Remove it first, or choose another name.' },
  file_not_a_directory: { status: 409, retryable: 'no', hint: 'A directory is needed at this path.' },
  file_is_a_directory: { status: 409, retryable: 'no', hint: 'A file is needed at this path.' },
  file_not_a_file: { status: 409, retryable: 'no', hint: 'Only regular files can be read and written.' },
  file_not_empty: { status: 409, retryable: 'no', hint: 'Remove it with recursive.' },
  file_too_many_links: { status: 409, retryable: 'no', hint: 'The path runs through a loop of symbolic links.' },
  file_io_error: { status: 500, retryable: 'unknown', hint: 'The sandbox reported an I/O error; see detail.' },
  // limits
  credit_exhausted: {
    status: 403,
    retryable: 'no',
    hint: 'An administrator of the server can add credit (npx instavm credit add); what is left: npx instavm credit',
  },
  quota_exceeded: { status: 429, retryable: 'no', hint: 'End sandboxes that are no longer needed.' },
  rate_limited: { status: 429, retryable: 'yes', hint: 'Wait, then try again.' },
  process_limit: { status: 429, retryable: 'yes', hint: 'End processes in the sandbox.' },
  too_many_execs: { status: 429, retryable: 'yes', hint: 'Wait for a command to end.' },
  pty_input_full: {
    status: 429,
    retryable: 'no',
    hint: 'The program does not read what is typed: interrupt it, or wait; then attach again.',
  },
  too_many_ptys: { status: 429, retryable: 'yes', hint: 'Delete terminals of the sandbox.' },
  too_many_viewers: { status: 429, retryable: 'yes', hint: 'Detach viewers of the terminal.' },
  watch_limit: { status: 429, retryable: 'no', hint: 'Watch a smaller tree.' },
  capacity_unavailable: { status: 503, retryable: 'yes', hint: 'The host is full: end a sandbox, or try again later.' },
  guest_disk_full: { status: 507, retryable: 'no', hint: 'Remove files in the sandbox.' },
  output_too_large: { status: 413, retryable: 'no', hint: 'Use streaming exec, or write to a file and download it.' },
  // guest
  guest_unresponsive: {
    status: 504,
    retryable: 'unknown',
    hint: 'The sandbox does not answer; end it if it stays so.',
  },
  guest_protocol: { status: 502, retryable: 'unknown', hint: 'The sandbox sent something that is no valid answer.' },
  guest_lost: { status: 502, retryable: 'unknown', hint: 'The sandbox ended while it was asked; see its state.' },
  exec_timeout: { status: 504, retryable: 'unknown', hint: 'Give the command more time.' },
  python_unavailable: { status: 502, retryable: 'yes', hint: 'The Python kernel does not start; see detail.' },
  // host
  production_refused: { status: 500, retryable: 'no', hint: 'Run: npm run doctor' },
  boot_failed: { status: 500, retryable: 'yes', hint: 'Run: npm run doctor' },
  snapshot_failed: {
    status: 500,
    retryable: 'yes',
    hint: 'The sandbox runs on, or its state says why not; see the log.',
  },
  snapshot_damaged: {
    status: 500,
    retryable: 'no',
    hint: 'Its files were changed or lost; delete it and make a new one.',
  },
  template_missing: { status: 503, retryable: 'yes', hint: 'Run: npm run setup' },
  teardown_incomplete: { status: 500, retryable: 'yes', hint: 'Something of the sandbox is still there; see the log.' },
  store_unavailable: {
    status: 503,
    retryable: 'yes',
    hint: 'The disk of the data directory is full, or another program holds the database.',
  },
  data_incompatible: {
    status: 503,
    retryable: 'no',
    hint: 'Start the version that wrote it, or restore a backup of before (docs/guides/operations.md).',
  },
  backup_damaged: { status: 422, retryable: 'no', hint: 'Restore another backup; this one was changed or cut short.' },
  shutting_down: { status: 503, retryable: 'yes', hint: 'The daemon is stopping; try again when it is back.' },
  internal: { status: 500, retryable: 'unknown', hint: 'The log has the request id.' },
} as const satisfies Record<string, Entry>;

export const ERROR_CATALOG: Readonly<Record<ErrorCode, Entry>> = CATALOG;

export type ErrorOptionsOf = {
  readonly details?: Readonly<Record<string, unknown>>;
  readonly cause?: unknown;
  readonly hint?: string;
};

/** What every failing part of the server throws. `cause` and the stack stay in memory and the log. */
export class InstaVMError extends Error {
  override readonly name = 'InstaVMError';
  readonly code: ErrorCode;
  readonly details: Readonly<Record<string, unknown>> | undefined;
  readonly hint: string;

  constructor(code: ErrorCode, message: string, options: ErrorOptionsOf = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details;
    this.hint = options.hint ?? CATALOG[code].hint;
  }

  get status(): number {
    return CATALOG[this.code].status;
  }

  get retryable(): Retryable {
    return CATALOG[this.code].retryable;
  }
}

export const isErrorCode = (text: string): text is ErrorCode => Object.hasOwn(CATALOG, text);

/** The body of an error response: `detail` for the official client, the rest for everyone else. */
export type ErrorBody = {
  readonly detail: string;
  readonly code: ErrorCode;
  readonly retryable: Retryable;
  readonly hint: string;
  readonly request_id: string;
  readonly details?: Readonly<Record<string, unknown>>;
};

/** Details that are for the log: what a VMM and the console of its guest said, with paths of the host. */
const UNTOLD: readonly string[] = ['diagnostics', 'console'];

export function errorBody(error: InstaVMError, requestId: string): ErrorBody {
  const { code, message, retryable, hint } = error;
  const told = Object.entries(error.details ?? {}).filter(([name]) => !UNTOLD.includes(name));
  return {
    detail: message,
    code,
    retryable,
    hint,
    request_id: requestId,
    ...(told.length === 0 ? {} : { details: Object.fromEntries(told) }),
  };
}
