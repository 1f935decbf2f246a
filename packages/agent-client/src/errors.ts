/** What can go wrong between host and guest, as one error with a stable reason word. */
import { Code, ConnectError } from '@connectrpc/connect';

/** The trailer in which the guest agent puts its reason. */
const REASON_TRAILER = 'instavm-reason';
const REASON = /^[a-z_]{1,40}$/;
/** The guest's sentences are shown to people; a hostile one must not be a book. */
const MAX_MESSAGE_LENGTH = 500;

/**
 * `reason` is the guest's word (docs/reference/agent-errors.md), or one of ours: `channel_lost` (the stream ended),
 * `deadline` (no answer in time), `cancelled` (the caller gave up), `protocol` (the guest broke the rules).
 */
export class AgentError extends Error {
  override readonly name = 'AgentError';
  readonly reason: string;

  constructor(reason: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }

  /** Turns whatever a call threw into an AgentError. */
  static from(error: unknown): AgentError {
    if (error instanceof AgentError) return error;
    const failure = ConnectError.from(error);
    const message = failure.rawMessage.slice(0, MAX_MESSAGE_LENGTH);
    const word = failure.metadata.get(REASON_TRAILER);
    const reason = word !== null && REASON.test(word) ? word : (OUR_REASONS[failure.code] ?? 'protocol');
    return new AgentError(reason, message, { cause: error });
  }
}

const OUR_REASONS: Partial<Record<Code, string>> = {
  [Code.Canceled]: 'cancelled',
  [Code.DeadlineExceeded]: 'deadline',
  [Code.Unavailable]: 'channel_lost',
  [Code.Aborted]: 'channel_lost',
};
