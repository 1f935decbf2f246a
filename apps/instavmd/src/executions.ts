/** Results of asynchronous executions: in memory, for an hour, a bounded number per account. */
import type { AccountId } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import type { RunResult } from './guest/run.ts';

const KEPT_MS = 3_600_000;
const MAX_PER_ACCOUNT = 200;

export type Execution = {
  readonly id: string;
  readonly accountId: AccountId;
  readonly createdAt: Date;
  /** Set when it ended; an error's sentence stands in for the output of one that could not run. */
  outcome?: RunResult | { readonly error: string };
};

export class Executions {
  readonly #executions = new Map<string, Execution>();

  /** @throws too_many_execs */
  start(accountId: AccountId, run: Promise<RunResult>): Execution {
    this.#forgetOld();
    const own = [...this.#executions.values()].filter((execution) => execution.accountId === accountId);
    if (own.length >= MAX_PER_ACCOUNT) {
      const ended = own.find((execution) => execution.outcome !== undefined);
      if (ended === undefined)
        throw new InstaVMError('too_many_execs', `${MAX_PER_ACCOUNT} executions are running already`);
      this.#executions.delete(ended.id);
    }
    const execution: Execution = { id: crypto.randomUUID(), accountId, createdAt: new Date() };
    this.#executions.set(execution.id, execution);
    run.then(
      (result) => {
        execution.outcome = result;
      },
      (error: unknown) => {
        execution.outcome = { error: error instanceof Error ? error.message : String(error) };
      },
    );
    return execution;
  }

  /** @throws execution_not_found */
  get(accountId: AccountId, id: string): Execution {
    const execution = this.#executions.get(id);
    if (execution?.accountId !== accountId)
      throw new InstaVMError('execution_not_found', `there is no execution ${id}`);
    return execution;
  }

  #forgetOld(): void {
    const before = Date.now() - KEPT_MS;
    for (const [id, { createdAt }] of this.#executions) if (createdAt.getTime() < before) this.#executions.delete(id);
  }
}
