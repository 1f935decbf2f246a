/**
 * Orders at one certificate authority (RFC 8555): the account, one order after the other for a name until a challenge is passed, and the certificate,
 * checked before anybody shows it. What the authority says is parsed and bounded; who may order what is decided elsewhere.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Authorization, crypto as acmeCrypto, Client, type Order } from 'acme-client';
import { readOrCreateSecret } from '../files.ts';
import { type Certificate, checkedCertificate } from './certificate.ts';
import { certificateFailed, kindOf } from './failures.ts';
import type { AuthorityOptions } from './options.ts';
import type { Solver } from './solver.ts';
import { asProblem, type Conversation, converse, plain } from './transport.ts';

/** Of one order with everything in it; authorities look several times and from several places. */
const ORDER_BUDGET_MS = 5 * 60_000;
const POLL_MS = [250, 500, 1_000, 2_000, 4_000] as const;
const POLL_LATER_MS = 5_000;
const POLL_LONGEST_MS = 15_000;

type Registration = { readonly by: Conversation; readonly client: Promise<Client> };

export class Authority {
  readonly #options: AuthorityOptions;
  readonly #accountKey: string;
  readonly #ca: string | undefined;
  #account: Registration | undefined;

  private constructor(options: AuthorityOptions, accountKey: string, ca: string | undefined) {
    this.#options = options;
    this.#accountKey = accountKey;
    this.#ca = ca;
  }

  /** @param directory of what belongs to this authority; the account's key is made there when missing */
  static async open(directory: string, options: AuthorityOptions): Promise<Authority> {
    const make = async (): Promise<string> => String(await acmeCrypto.createPrivateEcdsaKey('P-256'));
    const key = await readOrCreateSecret(join(directory, 'account-key.pem'), make);
    const ca = options.caPath === undefined ? undefined : await readFile(options.caPath, 'utf8');
    return new Authority(options, key, ca);
  }

  /**
   * A new certificate with a new key.
   * @param name a host name, or `*.` and one
   * @param solvers in the order in which they are tried; those that the authority does not offer are left out
   * @throws InstaVMError: certificate_failed; the signal's reason when it is aborted
   */
  async order(name: string, solvers: readonly Solver[], signal: AbortSignal): Promise<Certificate> {
    const budget = AbortSignal.timeout(ORDER_BUDGET_MS);
    const conversation: Conversation = { signal: AbortSignal.any([signal, budget]), ca: this.#ca };
    try {
      return await converse(conversation, () => this.#tryEach(name, solvers, conversation));
    } catch (error) {
      signal.throwIfAborted();
      const { problem, retryAfterMs } = conversation;
      if (kindOf(problem) === 'accountDoesNotExist') this.#account = undefined;
      if (error instanceof Refusal) throw certificateFailed({ domain: name, ...error.failure, cause: error });
      const text = error instanceof Error ? plain(error.message, 500) : 'unknown';
      const reason = budget.aborted ? `not done within ${ORDER_BUDGET_MS / 1_000} s` : (problem?.detail ?? text);
      const hint = problem
        ? undefined
        : 'The operator finds more in the log; the authority may be down or not reachable from here.';
      throw certificateFailed({ domain: name, reason, problem, hint, retryAfterMs, cause: error });
    }
  }

  async #tryEach(name: string, solvers: readonly Solver[], conversation: Conversation): Promise<Certificate> {
    const refusals: Refusal[] = [];
    let left = solvers;
    while (true) {
      const client = await this.#client(conversation);
      const order = await client.createOrder({ identifiers: [{ type: 'dns', value: name }] });
      const authorization = await authorizationOf(client, order);
      if (authorization.status !== 'valid') {
        const solver = left.find(({ type }) => authorization.challenges.some((offered) => offered.type === type));
        if (!solver) throw allOf(refusals) ?? nothingOffered(authorization, solvers);
        left = left.slice(left.indexOf(solver) + 1);
        try {
          await prove(client, { name, order, authorization, solver }, conversation);
        } catch (error) {
          // A refused authorization ends its order; the next way needs a new one.
          if (!(error instanceof Refusal)) throw error;
          refusals.push(error);
          continue;
        }
      }
      return await finish(client, name, order, conversation);
    }
  }

  /** Registered once a process; an authority that knows the key says which account it is. */
  async #client(conversation: Conversation): Promise<Client> {
    for (;;) {
      this.#account ??= { by: conversation, client: this.#register(conversation) };
      const account = this.#account;
      try {
        return await account.client;
      } catch (error) {
        if (this.#account === account) this.#account = undefined;
        // That another order was given up, or has no time left, is no reason for this one.
        if (account.by === conversation || !account.by.signal.aborted) throw error;
      }
    }
  }

  async #register(conversation: Conversation): Promise<Client> {
    const { directoryUrl, email, externalAccount } = this.#options;
    const client = new Client({
      directoryUrl,
      accountKey: this.#accountKey,
      ...(externalAccount === undefined ? {} : { externalAccountBinding: externalAccount }),
    });
    const agreed = { termsOfServiceAgreed: true };
    if (email !== undefined) await client.createAccount({ ...agreed, contact: [`mailto:${email}`] });
    // The client follows up on an account that is there with an update, which authorities refuse when it changes nothing.
    else if (!(await isRegistered(client, conversation))) await client.createAccount(agreed);
    return client;
  }
}

async function isRegistered(client: Client, conversation: Conversation): Promise<boolean> {
  try {
    await client.createAccount({ onlyReturnExisting: true });
    return true;
  } catch (error) {
    if (kindOf(conversation.problem) === 'accountDoesNotExist') return false;
    throw error;
  }
}

type Refused = Omit<Parameters<typeof certificateFailed>[0], 'domain' | 'cause'>;

/** The authority looked, and did not find what it wanted. */
class Refusal extends Error {
  readonly failure: Refused;

  constructor(failure: Refused) {
    super(failure.reason);
    this.failure = failure;
  }
}

function allOf(refusals: readonly Refusal[]): Refusal | undefined {
  const [first] = refusals;
  if (refusals.length < 2 || !first) return first;
  const reasons = refusals.map(({ failure }) => `${failure.challenge}: ${failure.reason}`);
  return new Refusal({ ...first.failure, challenge: undefined, reason: reasons.join(' · ') });
}

function nothingOffered({ challenges }: Authorization, solvers: readonly Solver[]): Refusal {
  const offered = challenges.map(({ type }) => plain(String(type), 30)).join(', ');
  return new Refusal({
    reason: `the authority offers ${offered}; this server does ${solvers.map(({ type }) => type).join(', ') || 'none of them'}`,
    hint: 'The operator can turn on more with INSTAVM_ACME_HTTP_LISTEN and INSTAVM_ACME_DNS_HOOK.',
  });
}

type Proving = {
  readonly name: string;
  readonly order: Order;
  readonly authorization: Authorization;
  readonly solver: Solver;
};

/** @throws Refusal */
async function prove(client: Client, { name, order, authorization, solver }: Proving, conversation: Conversation) {
  const challenge = authorization.challenges.find(({ type }) => type === solver.type);
  if (!challenge || !/^[\w-]{1,512}$/.test(String(challenge.token))) throw new Error('the challenge has no token');
  const proof = {
    domain: name.replace(/^\*\./, ''),
    token: challenge.token,
    value: await client.getChallengeKeyAuthorization(challenge),
  };
  const takeBack = await solver.present(proof, conversation.signal).catch((error: Error) => {
    conversation.signal.throwIfAborted();
    throw new Refusal({
      reason: plain(error.message, 500),
      challenge: solver.type,
      hint: 'The operator finds more in the log.',
    });
  });
  try {
    await client.completeChallenge(challenge);
    const ended = await poll(
      () => authorizationOf(client, order),
      ({ status }) => status !== 'pending',
      conversation,
    );
    if (ended.status === 'valid') return;
    const problem = asProblem(ended.challenges.find(({ type }) => type === solver.type)?.error);
    const reason = problem?.detail ?? `the authorization became ${plain(String(ended.status), 30)}`;
    throw new Refusal({ reason, challenge: solver.type, problem });
  } finally {
    await takeBack();
  }
}

async function finish(client: Client, name: string, order: Order, conversation: Conversation): Promise<Certificate> {
  const isUnderWay =
    (...states: string[]) =>
    (current: Order) =>
      !states.includes(current.status);
  const look = (): Promise<Order> => client.getOrder(order);
  await poll(look, isUnderWay('pending'), conversation);
  const [key, csr] = await acmeCrypto.createCsr({ altNames: [name] }, await acmeCrypto.createPrivateEcdsaKey('P-256'));
  await client.finalizeOrder(order, csr);
  const ended = await poll(look, isUnderWay('pending', 'ready', 'processing'), conversation);
  if (ended.status !== 'valid') {
    const problem = asProblem(ended.error);
    throw new Refusal({ reason: problem?.detail ?? `the order became ${plain(String(ended.status), 30)}`, problem });
  }
  return checkedCertificate(name, await client.getCertificate(ended), String(key));
}

/** One name, so one authorization. */
async function authorizationOf(client: Client, order: Order): Promise<Authorization> {
  if (!Array.isArray(order.authorizations) || order.authorizations.length !== 1) {
    throw new Error('the order for one name has not exactly one authorization');
  }
  const [authorization] = await client.getAuthorizations(order);
  if (!authorization || !Array.isArray(authorization.challenges) || authorization.challenges.length > 20) {
    throw new Error('the authorization has no list of challenges');
  }
  return authorization;
}

async function poll<T>(ask: () => Promise<T>, isDone: (answer: T) => boolean, conversation: Conversation): Promise<T> {
  for (let round = 0; ; round += 1) {
    const answer = await ask();
    if (isDone(answer)) return answer;
    const asked = conversation.retryAfterMs ?? POLL_MS[round] ?? POLL_LATER_MS;
    await sleep(Math.min(asked, POLL_LONGEST_MS), undefined, { signal: conversation.signal });
  }
}
