/** Terminals (contract §9, docs/reference/pty.md), under a session and under a VM. The PTYs themselves live in the guest. */
import type { PtyInfo } from '@instavm/agent-client';
import type { SandboxOwner } from '@instavm/core';
import {
  CreatePtyRequest,
  InstaVMError,
  PtyDeleted,
  PtySession,
  PtySessions,
  PtyToken,
  PtyTokenRequest,
  ResizePtyRequest,
  SIGNALS,
  SignalPtyRequest,
} from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { type Caller, READ, RUN } from '../auth.ts';
import { askGuest } from '../guest/errors.ts';
import type { Guest } from '../guest/guest.ts';
import { heldGuest } from '../guest/held-guest.ts';
import { signalName } from '../guest/signals.ts';
import { ownerOf, ownerOfVm } from './views.ts';

/** Longer than a busy emulated guest takes to start a program. */
const DEADLINE_MS = 30_000;
/** The last instant of a JavaScript Date (ECMA-262 §21.4.1.1); no terminal writes as many bytes either. */
const MAX_INSTANT_MS = 8.64e15;
const Scope = z.object({ id: z.string() });
const One = z.object({ id: z.string(), pty: z.string() });

type FindOwner = (services: Services, caller: Caller, id: string) => Promise<SandboxOwner<Guest>>;

/** Where terminals are found: the same routes under the sandbox and under its microVM. */
export const PTY_SCOPES: Readonly<Record<string, FindOwner>> = { sessions: ownerOf, vms: ownerOfVm };

export const ptyRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    for (const [scope, findOwner] of Object.entries(PTY_SCOPES)) {
      await app.register(scopedRoutes(services, `/v1/${scope}/:id/pty/sessions`, findOwner));
    }
  };

const scopedRoutes =
  (services: Services, base: string, findOwner: FindOwner): FastifyPluginAsyncZod =>
  async (app) => {
    const ptysOf = async (caller: Caller, id: string) =>
      (await (await findOwner(services, caller, id)).guest()).agent.pty;
    const within = { timeoutMs: DEADLINE_MS };

    const created = { params: Scope, body: CreatePtyRequest, response: { 200: PtySession } };
    app.post(base, { ...RUN, schema: created }, async ({ caller, params, body }, reply) => {
      const owner = await findOwner(services, caller, params.id);
      const { agent } = await heldGuest(owner, reply, 'always');
      return ptyView(await askGuest(() => agent.pty.create(createMessage(body), within)));
    });

    const listed = { params: Scope, response: { 200: PtySessions } };
    app.get(base, { ...READ, schema: listed }, async ({ caller, params }) => {
      const ptys = await ptysOf(caller, params.id);
      return { sessions: (await askGuest(() => ptys.list({}, within))).ptys.map(ptyView) };
    });

    const one = { params: One, response: { 200: PtySession } };
    app.get(`${base}/:pty`, { ...READ, schema: one }, async ({ caller, params }) => {
      const ptys = await ptysOf(caller, params.id);
      return ptyView(await askGuest(() => ptys.get({ id: params.pty }, within)));
    });
    app.post(
      `${base}/:pty/resize`,
      { ...RUN, schema: { ...one, body: ResizePtyRequest } },
      async ({ caller, params, body }) => {
        const ptys = await ptysOf(caller, params.id);
        return ptyView(await askGuest(() => ptys.resize({ id: params.pty, ...body }, within)));
      },
    );
    app.post(
      `${base}/:pty/signal`,
      { ...RUN, schema: { ...one, body: SignalPtyRequest } },
      async ({ caller, params, body }) => {
        const ptys = await ptysOf(caller, params.id);
        const request = { id: params.pty, signal: SIGNALS[body.signal], session: body.session };
        return ptyView(await askGuest(() => ptys.signal(request, within)));
      },
    );

    const token = { params: One, body: PtyTokenRequest.nullish(), response: { 200: PtyToken } };
    app.post(`${base}/:pty/token`, { ...RUN, schema: token }, async ({ caller, params, body }, reply) => {
      const owner = await findOwner(services, caller, params.id);
      const { agent } = await heldGuest(owner, reply);
      await askGuest(() => agent.pty.get({ id: params.pty }, within));
      const grant = { caller, sandboxId: owner.record.id, ptyId: params.pty };
      const issued = services.ptyTokens.issue({ ...grant, readOnly: body?.read_only ?? false });
      return { token: issued.token, expires_at: issued.expiresAt.toISOString() };
    });

    const deleted = { params: One, response: { 200: PtyDeleted } };
    app.delete(`${base}/:pty`, { ...RUN, schema: deleted }, async ({ caller, params }) => {
      const owner = await findOwner(services, caller, params.id);
      try {
        const { agent } = await owner.guest();
        await askGuest(() => agent.pty.close({ id: params.pty }, within));
        return { success: true, existed: true };
      } catch (error) {
        // Clients delete what they never made, and after the sandbox has ended: both leave nothing to do.
        if (error instanceof InstaVMError && ALREADY_GONE.has(error.code)) return { success: true, existed: false };
        throw error;
      }
    });
  };

const ALREADY_GONE: ReadonlySet<string> = new Set(['pty_not_found', 'invalid_state', 'lease_expired']);

function createMessage(body: CreatePtyRequest) {
  const { id = `pty-${crypto.randomUUID()}`, cols, rows, env = {}, cwd = '', user = '', linger_seconds } = body;
  return { id, args: argvOf(body), env, cwd, user, cols, rows, lingerMs: linger_seconds * 1000 };
}

/** As the contract spells the three ways to say what runs. */
function argvOf({ argv, shell, command }: CreatePtyRequest): string[] {
  if (argv !== undefined) return argv;
  if (command !== undefined) return ['/bin/bash', '-lc', command];
  return [shell ?? '/bin/bash', '-il'];
}

/** @throws guest_protocol for numbers that cannot be */
export function ptyView(info: PtyInfo): PtySession {
  const numbers = [info.startOffset, info.endOffset, info.createdUnixMs].map(Number);
  if (numbers.some((number) => number > MAX_INSTANT_MS))
    throw new InstaVMError('guest_protocol', 'the guest described a terminal by numbers that cannot be');
  return {
    session_id: info.id,
    id: info.id,
    alive: info.alive,
    pid: info.pid,
    exit_code: info.alive ? null : info.exitCode,
    signal: info.alive ? null : signalName(info.exitSignal),
    cols: info.cols,
    rows: info.rows,
    argv: info.args,
    user: info.user,
    start_offset: Number(info.startOffset),
    end_offset: Number(info.endOffset),
    viewers: info.viewers,
    linger_seconds: info.lingerMs / 1000,
    created_at: new Date(Number(info.createdUnixMs)).toISOString(),
  };
}
