/**
 * The states of a sandbox as data: which request is accepted in which state, is already so, or is denied with a reason, which state may
 * follow which, and how long a passing one may last. Pure.
 *
 *     creating ─► running ─► suspending ─► suspended ─► resuming ─► running
 *        │          │  ▲          │            │            │
 *        │          │  └──────────┘            │◄───────────┘ (a resume that failed: nothing is lost)
 *        ▼          ▼                          ▼
 *     failed ◄── stopping ─► stopped        stopping          failed, stopped ─► creating (a new incarnation)
 */

/** `creating`, `suspending`, `resuming` and `stopping` pass, with a deadline; the others rest. */
export type SandboxState =
  | 'creating'
  | 'running'
  | 'suspending'
  | 'suspended'
  | 'resuming'
  | 'stopping'
  | 'stopped'
  | 'failed';

export type PassingState = 'creating' | 'suspending' | 'resuming' | 'stopping';

/** What ended the latest incarnation: its owner, its lease, the daemon, or an accident. */
export type EndCause = 'request' | 'expiry' | 'daemon' | 'loss';

/**
 * `rouse` resumes for a command, a terminal, a file or a preview what was suspended and allows it; `wake` also gives a fresh microVM to
 * a sandbox that lost its own. `start` and `resume` are asked for by name.
 */
export type SandboxRequest = 'start' | 'wake' | 'rouse' | 'suspend' | 'resume' | 'snapshot' | 'end';

export type Verdict =
  | { readonly kind: 'accept' }
  | { readonly kind: 'already_so' }
  | { readonly kind: 'deny'; readonly reason: string };

const accept: Verdict = { kind: 'accept' };
const alreadySo: Verdict = { kind: 'already_so' };
const deny = (reason: string): Verdict => ({ kind: 'deny', reason });

const ENDING = deny('the sandbox is being ended; ask again when it has stopped');
const STARTING = deny('the sandbox is being started; ask again when it runs');
const SAVING = deny('the sandbox is being suspended; ask again when it is');
const ENDED = deny('the sandbox has ended, and nothing of it was kept');
const FAILED = deny('the sandbox has failed, and nothing of it was kept');

const up = { start: alreadySo, wake: alreadySo, rouse: alreadySo, resume: alreadySo, end: accept };

const POLICY: Readonly<Record<SandboxState, Readonly<Record<SandboxRequest, Verdict>>>> = {
  creating: { ...up, suspend: STARTING, snapshot: STARTING },
  running: { ...up, suspend: accept, snapshot: accept },
  suspending: {
    start: SAVING,
    wake: SAVING,
    rouse: SAVING,
    resume: SAVING,
    suspend: alreadySo,
    snapshot: SAVING,
    end: accept,
  },
  suspended: {
    start: accept,
    wake: accept,
    rouse: accept,
    resume: accept,
    suspend: alreadySo,
    snapshot: accept,
    end: accept,
  },
  resuming: { ...up, suspend: STARTING, snapshot: STARTING },
  stopping: {
    start: ENDING,
    wake: ENDING,
    rouse: ENDING,
    resume: ENDING,
    suspend: ENDING,
    snapshot: ENDING,
    end: accept,
  },
  stopped: {
    start: accept,
    wake: accept,
    rouse: ENDED,
    resume: ENDED,
    suspend: ENDED,
    snapshot: ENDED,
    end: alreadySo,
  },
  failed: {
    start: accept,
    wake: accept,
    rouse: FAILED,
    resume: FAILED,
    suspend: FAILED,
    snapshot: FAILED,
    end: accept,
  },
};

export type DecidingFacts = {
  readonly state: SandboxState;
  readonly endCause: EndCause | null;
  readonly autoResume: boolean;
};

/** A sandbox that someone ended stays so until someone starts it: a late command must not bring it back. */
export function decide({ state, endCause, autoResume }: DecidingFacts, request: SandboxRequest): Verdict {
  const isByTheWay = request === 'wake' || request === 'rouse';
  if (isByTheWay && state === 'stopped' && endCause === 'request') return deny('the sandbox was ended');
  if (isByTheWay && state === 'suspended' && !autoResume)
    return deny('the sandbox is suspended, and is resumed only by name');
  return POLICY[state][request];
}

/** Which state may follow which. */
export const TRANSITIONS: Readonly<Record<SandboxState, readonly SandboxState[]>> = {
  creating: ['running', 'stopping', 'failed'],
  running: ['suspending', 'stopping', 'failed'],
  suspending: ['suspended', 'running', 'stopping', 'failed'],
  suspended: ['resuming', 'stopping'],
  resuming: ['running', 'suspended', 'stopping', 'failed'],
  stopping: ['stopped', 'failed'],
  stopped: ['creating'],
  failed: ['creating', 'stopping'],
};

/** What each passing state may take at most before it is given up. An emulating host under load needs seconds where KVM needs none. */
export const DEADLINES_MS: Readonly<Record<PassingState, number>> = {
  creating: 90_000,
  // The largest machine, 8 GiB, at 50 MB/s.
  suspending: 180_000,
  resuming: 120_000,
  stopping: 30_000,
};

/** States in which a microVM exists or is about to. */
export const HOLDING_STATES: readonly SandboxState[] = ['creating', 'running', 'suspending', 'resuming', 'stopping'];
/** Those in which its vCPUs may run, and are charged for. */
export const METERED_STATES: readonly SandboxState[] = ['running', 'suspending'];
/** Those of a sandbox that a client may call running. */
export const ALIVE_STATES: readonly SandboxState[] = ['creating', 'running', 'suspending', 'resuming'];
/** Those in which nothing of it is kept; only a start by name, or a use that may make a fresh microVM, leads out of them. */
export const ENDED_STATES: readonly SandboxState[] = ['stopped', 'failed'];
