/** Execution of the contract (§5): a command or a Python cell, run to its end. */
import type { SandboxOwner } from '@instavm/core';
import { ExecuteAsyncResponse, ExecuteRequest, ExecuteResponse, ExecutionResponse, InstaVMError } from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import type { Execution, Executions } from '../executions.ts';
import type { Guest } from '../guest/guest.ts';
import { type RunResult, runToEnd } from '../guest/run.ts';
import { ownerOf } from './views.ts';

/** The client stops reading at exactly its timeout: end the command this much sooner, and answer with what there is. */
const ANSWER_MARGIN_MS = 500;
const SHORTEST_MS = 300;

export const executeRoutes =
  (services: Services, executions: Executions): FastifyPluginAsyncZod =>
  async (app) => {
    app.post(
      '/execute',
      { schema: { body: ExecuteRequest, response: { 200: ExecuteResponse } } },
      async ({ account, body }) => {
        const owner = await ownerOf(services, account.id, body.session_id);
        const createdAt = new Date();
        return { ...resultView(await run(owner, body)), created_at: createdAt.toISOString() };
      },
    );

    const started = { body: ExecuteRequest, response: { 200: ExecuteAsyncResponse } };
    app.post('/execute_async', { schema: started }, async ({ account, body }) => {
      const owner = await ownerOf(services, account.id, body.session_id);
      return { task_id: executions.start(account.id, run(owner, body)).id };
    });

    const polled = { params: z.object({ task: z.string() }), response: { 200: ExecutionResponse } };
    app.get('/v1/executions/:task', { schema: polled }, async ({ account, params }) =>
      executionView(executions.get(account.id, params.task)),
    );
  };

async function run(owner: SandboxOwner<Guest>, body: ExecuteRequest): Promise<RunResult> {
  const asked = Date.now();
  const guest = await owner.wokenGuest();
  const leaseMs = (owner.record.expiresAt?.getTime() ?? asked) - asked;
  const patienceMs = body.timeout === undefined ? leaseMs : body.timeout * 1000;
  // Starting a microVM counts against the client's patience as well.
  const timeoutMs = Math.max(SHORTEST_MS, patienceMs - ANSWER_MARGIN_MS - (Date.now() - asked));
  const command = body.command ?? body.code ?? '';
  try {
    return await runToEnd(guest, { language: body.language, command, timeoutMs });
  } catch (error) {
    // Ended under the command: the state says why, and the command is not run again by itself.
    if (error instanceof InstaVMError && error.code === 'guest_lost') {
      const reason = owner.record.stateReason;
      throw new InstaVMError('guest_lost', reason === null ? error.message : `the sandbox ended: ${reason}`, {
        cause: error,
      });
    }
    throw error;
  }
}

function resultView({ stdout, stderr, exit }: RunResult) {
  return {
    stdout: stdout.toString('utf8'),
    stderr: stderr.toString('utf8'),
    exit_code: exit.code,
    execution_time: Number(exit.wallTimeUs) / 1e6,
    cpu_time: Number(exit.cpuTimeUs) / 1e6,
  };
}

function executionView({ id, createdAt, outcome }: Execution) {
  const common = { task_id: id, is_complete: outcome !== undefined, created_at: createdAt.toISOString() };
  const nothing = {
    serialized_stdout: null,
    serialized_stderr: null,
    exit_code: null,
    execution_time: null,
    cpu_time: null,
  };
  if (outcome === undefined) return { ...common, ...nothing };
  if ('error' in outcome) return { ...common, ...nothing, serialized_stdout: '', serialized_stderr: outcome.error };
  const { stdout, stderr, ...rest } = resultView(outcome);
  return { ...common, ...rest, serialized_stdout: stdout, serialized_stderr: stderr };
}
