/** What each error means to a visitor, who owns nothing here and may be anybody. */
import type { ErrorCode } from '@instavm/wire';

export type Wording = {
  readonly title: string;
  readonly status?: number;
  /** Instead of the error's, which may name sandboxes and the state of the host: nothing for strangers. */
  readonly message?: string;
  /** Instead of the catalog's, which speaks to who calls the API. */
  readonly hint?: string;
  /** The page asks again by itself. */
  readonly retrySeconds?: number;
};

const GONE = {
  title: 'The sandbox is gone',
  status: 410,
  message: 'The sandbox that was here has ended.',
  hint: 'Ask its owner for a new address.',
} as const;
/** Of what only happens inside, whatever it is. */
export const OTHER = {
  title: 'This did not work',
  message: 'The sandbox cannot be reached.',
  hint: 'Try again; if it stays like this, tell its owner.',
} as const;

/** Codes with a page of their own; a state that stands in the way is 503 here, since the address itself is right. */
export const WORDING: Partial<Record<ErrorCode, Wording>> = {
  share_not_found: { title: 'There is no preview here', hint: 'Ask its owner for the current address.' },
  route_not_found: { title: 'There is no such page', hint: 'Leave the part after the host name out of the address.' },
  malformed_request: {
    title: 'This request cannot be understood',
    hint: 'What sent it does not keep to HTTP, or takes this for something else.',
  },
  misdirected_request: { title: 'This address is not a preview' },
  url_too_long: { title: 'The address is too long' },
  headers_too_large: { title: 'The request is too large' },
  port_not_listening: { title: 'Nothing is listening yet', retrySeconds: 2 },
  service_failed: { title: 'The service broke off' },
  service_timeout: { title: 'The service does not answer' },
  sandbox_suspended: {
    title: 'The sandbox is asleep',
    status: 503,
    message: 'It is suspended, and stays so when somebody visits.',
    hint: 'Its owner can resume it.',
    retrySeconds: 10,
  },
  invalid_state: {
    title: 'The sandbox is not running',
    status: 503,
    message: 'It is starting, stopping, or has failed.',
    hint: 'It may be on its way; if it stays like this, ask its owner.',
    retrySeconds: 5,
  },
  conflict: {
    title: 'The sandbox is changing',
    status: 503,
    message: 'Something else is being done to it right now.',
    hint: 'This takes a moment.',
    retrySeconds: 3,
  },
  capacity_unavailable: {
    title: 'The host is full',
    message: 'The sandbox was asleep, and there is no room to wake it.',
    hint: 'There may be room again in a moment.',
    retrySeconds: 10,
  },
  guest_unresponsive: {
    title: 'The sandbox is waking up',
    status: 503,
    message: 'The sandbox does not answer yet.',
    hint: 'It was asleep, or is busy; this takes a moment.',
    retrySeconds: 3,
  },
  guest_lost: {
    title: 'The sandbox ended',
    message: 'It ended while you were visiting.',
    hint: 'Its owner can see why.',
  },
  shutting_down: {
    title: 'The server is restarting',
    message: 'It will be back where it was.',
    hint: 'This takes a moment.',
    retrySeconds: 5,
  },
  lease_expired: GONE,
  sandbox_not_found: GONE,
  incarnation_not_found: GONE,
  rate_limited: { title: 'Too many visitors at once', retrySeconds: 3 },
  internal: { ...OTHER, message: 'This is a fault of the server.' },
};
