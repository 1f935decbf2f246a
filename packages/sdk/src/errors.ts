/** What the server said went wrong, or what kept it from answering. */

/** `unknown`: the command may have run. */
export type Retryable = 'no' | 'yes' | 'unknown';

/**
 * Codes of the server are listed in its reference under "Errors"; a newer server may send others, which are kept as they are. Our own are
 * `connection_failed` (no answer), `connection_lost` (it broke off in the middle), `unexpected_answer` and `wait_timeout`.
 */
export class InstaVMError extends Error {
  override readonly name = 'InstaVMError';
  readonly code: string;
  /** HTTP status; undefined when there was no HTTP answer. */
  readonly status: number | undefined;
  readonly retryable: Retryable;
  readonly hint: string | undefined;
  readonly requestId: string | undefined;
  readonly details: Readonly<Record<string, unknown>> | undefined;

  constructor(code: string, message: string, fields: InstaVMErrorFields = {}) {
    super(message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.code = code;
    this.status = fields.status;
    this.retryable = fields.retryable ?? 'no';
    this.hint = fields.hint;
    this.requestId = fields.requestId;
    this.details = fields.details;
  }
}

export type InstaVMErrorFields = {
  readonly status?: number | undefined;
  readonly retryable?: Retryable | undefined;
  readonly hint?: string | undefined;
  readonly requestId?: string | undefined;
  readonly details?: Readonly<Record<string, unknown>> | undefined;
  readonly cause?: unknown;
};

/** From an error body; one that is not ours (a proxy's, say) keeps its text. */
export function errorFromBody(status: number | undefined, text: string): InstaVMError {
  let body: Record<string, unknown> = {};
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === 'object' && parsed !== null) body = parsed as Record<string, unknown>;
  } catch {
    // Not JSON: the text itself is the best there is.
  }
  const word = (name: string): string | undefined =>
    typeof body[name] === 'string' ? (body[name] as string) : undefined;
  const retryable = word('retryable');
  return new InstaVMError(
    word('code') ?? 'unexpected_answer',
    word('detail') ?? `the server answered ${status}: ${text.slice(0, 200)}`,
    {
      status,
      retryable: retryable === 'yes' || retryable === 'unknown' ? retryable : 'no',
      hint: word('hint'),
      requestId: word('request_id'),
      details:
        typeof body.details === 'object' && body.details !== null
          ? (body.details as Record<string, unknown>)
          : undefined,
    },
  );
}
