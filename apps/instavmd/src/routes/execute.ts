/** Execution of the contract (§5): a command or a Python cell, run to its end. */
import { Readable } from 'node:stream';
import type { SandboxOwner } from '@instavm/core';
import { ExecuteAsyncResponse, ExecuteRequest, ExecuteResponse, ExecutionResponse, InstaVMError } from '@instavm/wire';
import type { FastifyReply } from 'fastify';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { READ, RUN } from '../auth.ts';
import type { Execution, Executions } from '../executions.ts';
import type { Guest } from '../guest/guest.ts';
import { OutputBudget } from '../guest/output-budget.ts';
import { type RunResult, runToEnd } from '../guest/run.ts';
import { jsonText } from '../json-text.ts';
import { untilClosed, whenClosed } from './until-closed.ts';
import { ownerOf } from './views.ts';

/** The client stops reading at exactly its timeout: the command is ended this much sooner, and answered for with what there is. */
const END_MARGIN_MS = 500;
/** When a command does not give way by then, it is answered for without it. */
const ANSWER_MARGIN_MS = 200;
const SHORTEST_MS = 300;

export const executeRoutes =
  (services: Services, executions: Executions): FastifyPluginAsyncZod =>
  async (app) => {
    app.post(
      '/execute',
      {
        ...RUN,
        schema: {
          summary: 'Run a bash script or a Python cell to its end',
          body: ExecuteRequest,
          response: { 200: ExecuteResponse },
        },
      },
      async ({ caller, body }, reply) => {
        const createdAt = new Date();
        const owner = await ownerOf(services, caller, body.session_id);
        const budget = new OutputBudget(caller.account.id);
        whenClosed(reply, () => budget.release());
        const result = await run(owner, body, budget, untilClosed(reply));
        const parts = { stdout: result.stdout, stderr: result.stderr };
        return sendStreamed(reply, { ...numbers(result), created_at: createdAt.toISOString() }, parts);
      },
    );

    const started = {
      summary: 'Run it in the background; poll /v1/executions/{task}',
      body: ExecuteRequest,
      response: { 200: ExecuteAsyncResponse },
    };
    app.post('/execute_async', { ...RUN, schema: started }, async ({ caller, body }) => {
      const owner = await ownerOf(services, caller, body.session_id);
      return { task_id: executions.start(owner.record, (budget) => run(owner, body, budget)).id };
    });

    const polled = {
      summary: 'State and result of a background execution',
      params: z.object({ task: z.string() }),
      response: { 200: ExecutionResponse },
    };
    app.get('/v1/executions/:task', { ...READ, schema: polled }, async ({ caller, params }, reply) => {
      const execution = executions.get(caller.account.id, params.task);
      if (caller.sandboxMetadata !== null) await ownerOf(services, caller, execution.sandboxId);
      const { outcome } = execution;
      if (outcome === undefined || 'error' in outcome) return unfinishedView(execution);
      const parts = { serialized_stdout: outcome.stdout, serialized_stderr: outcome.stderr };
      return sendStreamed(reply, { ...common(execution), ...numbers(outcome) }, parts);
    });
  };

/** Counts as use of the sandbox while it lasts. */
async function run(
  owner: SandboxOwner<Guest>,
  body: ExecuteRequest,
  budget: OutputBudget,
  abandoned?: AbortSignal,
): Promise<RunResult> {
  const release = owner.hold();
  try {
    return await runWoken(owner, body, budget, abandoned);
  } finally {
    release();
  }
}

async function runWoken(
  owner: SandboxOwner<Guest>,
  body: ExecuteRequest,
  budget: OutputBudget,
  abandoned: AbortSignal | undefined,
): Promise<RunResult> {
  const asked = Date.now();
  const guest = await owner.guest('always');
  // Starting a microVM counts against the client's patience as well.
  const spentMs = Date.now() - asked;
  const leaseMs = (owner.record.expiresAt?.getTime() ?? asked) - Date.now();
  const patienceMs = body.timeout === undefined ? leaseMs : body.timeout * 1000 - spentMs;
  const request = {
    language: body.language,
    command: body.command ?? body.code ?? '',
    timeoutMs: Math.max(SHORTEST_MS, patienceMs - END_MARGIN_MS),
    answerWithinMs: Math.max(SHORTEST_MS * 2, patienceMs - ANSWER_MARGIN_MS),
    ...(abandoned === undefined ? {} : { abandoned }),
  };
  try {
    return await runToEnd(guest, request, budget);
  } catch (error) {
    // Ended under the command: the state says why, and the command is not run again by itself.
    if (error instanceof InstaVMError && error.code === 'guest_lost') {
      const fate: unknown = await owner.guest().catch((reason: unknown) => reason);
      throw new InstaVMError('guest_lost', fate instanceof InstaVMError ? fate.message : error.message, {
        cause: error,
      });
    }
    throw error;
  }
}

const numbers = ({ exit }: RunResult) => ({
  exit_code: exit.code,
  execution_time: Number(exit.wallTimeUs) / 1e6,
  cpu_time: Number(exit.cpuTimeUs) / 1e6,
});

const common = ({ id, outcome, createdAt }: Execution) => ({
  task_id: id,
  is_complete: outcome !== undefined,
  created_at: createdAt.toISOString(),
});

function unfinishedView(execution: Execution) {
  const { outcome } = execution;
  const failed = outcome !== undefined && 'error' in outcome;
  return {
    ...common(execution),
    serialized_stdout: failed ? '' : null,
    serialized_stderr: failed ? outcome.error : null,
    exit_code: null,
    execution_time: null,
    cpu_time: null,
  };
}

/** Output as a JSON object that is made while it is sent: the text of a large output is never held beside its bytes. */
function sendStreamed(
  reply: FastifyReply,
  fields: Record<string, unknown>,
  texts: Record<string, readonly Uint8Array[]>,
): FastifyReply {
  function* body(): Generator<string> {
    yield JSON.stringify(fields).slice(0, -1);
    for (const [name, pieces] of Object.entries(texts)) {
      yield `,${JSON.stringify(name)}:"`;
      yield* jsonText(pieces);
      yield '"';
    }
    yield '}';
  }
  const sizeBytes = Object.values(texts).reduce((sum, pieces) => sum + pieces.reduce((n, p) => n + p.length, 0), 0);
  reply.type('application/json; charset=utf-8');
  if (sizeBytes < SMALL_OUTPUT_BYTES) return reply.send([...body()].join(''));
  return reply.send(Readable.from(body(), { objectMode: false }));
}

/** Sent in one piece. */
const SMALL_OUTPUT_BYTES = 256 * 1024;
