/** Sessions of the contract (§4). */

import type { SandboxRecord } from '@instavm/core';
import {
  CreateSessionRequest,
  CreateSessionResponse,
  InstaVMError,
  KillRequest,
  KillResponse,
  SandboxesQuery,
  SessionStatus,
  SessionUsage,
  Vm,
} from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { authenticate, PUBLIC, READ, RUN, requireScope } from '../auth.ts';
import { createSandbox } from './create.ts';
import { isUsable, ownerOf, recordsFor, vmStatus, vmView } from './views.ts';

const Params = z.object({ sid: z.string() });

export const sessionRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const created = { body: CreateSessionRequest, response: { 200: CreateSessionResponse } };
    app.post('/v1/sessions/session', { ...PUBLIC, schema: created }, async ({ body, ip }) => {
      const caller = await authenticate(services, body.api_key, ip);
      requireScope(caller, 'run');
      const owner = await createSandbox(services, caller, { ...body, ttlSeconds: body.vm_lifetime_seconds });
      return { session_id: owner.record.id };
    });

    app.get(
      '/v1/sessions/session/:sid',
      { ...READ, schema: { params: Params, response: { 200: Vm } } },
      async ({ caller, params }) => vmView((await ownerOf(services, caller, params.sid)).record),
    );

    const status = { params: Params, response: { 200: SessionStatus } };
    app.get('/v1/sessions/status/:sid', { ...READ, schema: status }, async ({ caller, params }) =>
      statusView((await ownerOf(services, caller, params.sid)).record),
    );

    const usage = { params: Params, response: { 200: SessionUsage } };
    app.get('/v1/sessions/usage/:sid', { ...READ, schema: usage }, async ({ caller, params }) => {
      const owner = await ownerOf(services, caller, params.sid);
      const { record } = owner;
      const cpu = owner.isAlive
        ? await (await owner.guest()).agent.lifecycle.stats({}, { timeoutMs: 10_000 })
        : undefined;
      return {
        session_id: record.id,
        vcpu_count: record.size.vcpus,
        memory_mb: record.size.memoryMib,
        uptime_seconds: uptimeSeconds(record) ?? 0,
        cpu_seconds: cpu === undefined ? null : Number(cpu.cpuTimeMs) / 1000,
      };
    });

    const listed = { querystring: SandboxesQuery, response: { 200: z.array(Vm) } };
    app.get('/v1/sessions/sandboxes', { ...READ, schema: listed }, async ({ caller, query }) => {
      const records = await recordsFor(services, caller, query);
      return records.map(vmView);
    });

    app.post(
      '/kill',
      { ...RUN, schema: { body: KillRequest, response: { 200: KillResponse } } },
      async ({ caller, body }) => {
        try {
          await (await ownerOf(services, caller, body.session_id)).end('ended by request', 'request');
        } catch (error) {
          // The contract wants ending to be idempotent, for sessions that never were too.
          if (!(error instanceof InstaVMError) || error.code !== 'sandbox_not_found') throw error;
        }
        return { success: true, session_id: body.session_id };
      },
    );
  };

function uptimeSeconds(record: SandboxRecord): number | null {
  if (record.startedAt === null) return null;
  return ((record.endedAt ?? new Date()).getTime() - record.startedAt.getTime()) / 1000;
}

function statusView(record: SandboxRecord) {
  const assigned = record.incarnationId !== null;
  // A suspended session that the next command resumes is as good as a running one.
  const alive = isUsable(record);
  return {
    session_id: record.id,
    exists: true,
    vm_assigned: assigned,
    vm_alive: alive,
    vm_status: assigned ? (alive || record.state === 'suspended' ? vmStatus(record) : 'killed') : null,
    vm_id: record.incarnationId,
    uptime_seconds: uptimeSeconds(record),
    expires_in_seconds:
      record.expiresAt === null ? null : Math.max(0, (record.expiresAt.getTime() - Date.now()) / 1000),
    created_at: record.createdAt.toISOString(),
  };
}
