/** Results of asynchronous executions: in memory, for an hour, a bounded number and size of them. */
import type { AccountId, SandboxId, SandboxRecord } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { OutputBudget } from './guest/output-budget.ts';
import type { RunResult } from './guest/run.ts';

const KEPT_MS = 3_600_000;
const MAX_PER_ACCOUNT = 200;
/** Results of one account beyond this make room for newer ones. */
const MAX_KEPT_BYTES = 64 * 1024 * 1024;

export type Execution = {
  readonly id: string;
  readonly accountId: AccountId;
  readonly sandboxId: SandboxId;
  readonly createdAt: Date;
  readonly budget: OutputBudget;
  /** Set when it ended; an error's sentence stands in for the output of one that could not run. */
  outcome?: RunResult | { readonly error: string };
};

export class Executions {
  readonly #executions = new Map<string, Execution>();

  /** @throws too_many_execs */
  start(
    { accountId, id: sandboxId }: Pick<SandboxRecord, 'accountId' | 'id'>,
    run: (budget: OutputBudget) => Promise<RunResult>,
  ): Execution {
    this.#forgetOld();
    const own = this.#of(accountId);
    if (own.length >= MAX_PER_ACCOUNT) {
      const ended = own.find((execution) => execution.outcome !== undefined);
      if (ended === undefined)
        throw new InstaVMError('too_many_execs', `${MAX_PER_ACCOUNT} executions are running already`);
      this.#forget(ended);
    }
    const execution: Execution = {
      id: crypto.randomUUID(),
      accountId,
      sandboxId,
      createdAt: new Date(),
      budget: new OutputBudget(accountId),
    };
    this.#executions.set(execution.id, execution);
    run(execution.budget).then(
      (result) => {
        execution.outcome = result;
        this.#makeRoom(execution);
      },
      (error: unknown) => {
        execution.budget.release();
        execution.outcome = { error: error instanceof InstaVMError ? error.message : 'the execution failed' };
      },
    );
    return execution;
  }

  /** @throws execution_not_found */
  get(accountId: AccountId, id: string): Execution {
    this.#forgetOld();
    const execution = this.#executions.get(id);
    if (execution?.accountId !== accountId)
      throw new InstaVMError('execution_not_found', `there is no execution ${id.slice(0, 80)}`);
    return execution;
  }

  #of(accountId: AccountId): Execution[] {
    return [...this.#executions.values()].filter((execution) => execution.accountId === accountId);
  }

  /** Oldest first; the newest stays however large it is. */
  #makeRoom(newest: Execution): void {
    const ended = this.#of(newest.accountId).filter(({ outcome }) => outcome !== undefined);
    let kept = ended.reduce((sum, { budget }) => sum + budget.takenBytes, 0);
    for (const execution of ended) {
      if (kept <= MAX_KEPT_BYTES) return;
      if (execution === newest) continue;
      kept -= execution.budget.takenBytes;
      this.#forget(execution);
    }
  }

  #forgetOld(): void {
    const before = Date.now() - KEPT_MS;
    for (const execution of this.#executions.values()) {
      if (execution.outcome !== undefined && execution.createdAt.getTime() < before) this.#forget(execution);
    }
  }

  #forget(execution: Execution): void {
    execution.budget.release();
    this.#executions.delete(execution.id);
  }
}
