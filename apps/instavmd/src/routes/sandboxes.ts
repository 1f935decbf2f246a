/** Sandboxes under our own words (`/v2`). */
import { CreateSandboxRequest, ListSandboxesQuery, Sandbox, SandboxMetrics, SandboxStats } from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { READ, RUN } from '../auth.ts';
import type { Sample } from '../usage-samples/ring.ts';
import { createSandbox, egressWanted } from './create.ts';
import { ownerOf, recordsFor, sandboxView } from './views.ts';

const Params = z.object({ id: z.string() });
const STATS_DEADLINE_MS = 10_000;

export const sandboxRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const created = { body: CreateSandboxRequest, response: { 201: Sandbox } };
    app.post('/v2/sandboxes', { ...RUN, schema: created }, async ({ caller, body }, reply) => {
      const egress = egressWanted(services.egress, body.egress_policy);
      const owner = await createSandbox(services, caller, { ...body, ttlSeconds: body.ttl_seconds, ...egress });
      return reply.code(201).send(sandboxView(owner.record));
    });

    const listed = { querystring: ListSandboxesQuery, response: { 200: z.object({ sandboxes: z.array(Sandbox) }) } };
    app.get('/v2/sandboxes', { ...READ, schema: listed }, async ({ caller, query }) => ({
      sandboxes: (await recordsFor(services, caller, query)).map(sandboxView),
    }));

    const one = { params: Params, response: { 200: Sandbox } };
    app.get('/v2/sandboxes/:id', { ...READ, schema: one }, async ({ caller, params }) =>
      sandboxView((await ownerOf(services, caller, params.id)).record),
    );
    app.delete('/v2/sandboxes/:id', { ...RUN, schema: one }, async ({ caller, params }) => {
      const owner = await ownerOf(services, caller, params.id);
      await owner.end('deleted by request', 'request');
      return sandboxView(owner.record);
    });

    const stats = { params: Params, response: { 200: SandboxStats } };
    app.get('/v2/sandboxes/:id/stats', { ...READ, schema: stats }, async ({ caller, params }) => {
      const guest = await (await ownerOf(services, caller, params.id)).guest();
      const numbers = await guest.stats(STATS_DEADLINE_MS);
      return {
        agent_rss_bytes: Number(numbers.agentRssBytes),
        memory_total_bytes: Number(numbers.memoryTotalBytes),
        memory_available_bytes: Number(numbers.memoryAvailableBytes),
        disk_total_bytes: Number(numbers.diskTotalBytes),
        disk_free_bytes: Number(numbers.diskFreeBytes),
        processes: numbers.processes,
        uptime_ms: Number(numbers.uptimeMs),
        cpu_time_ms: Number(numbers.cpuTimeMs),
      };
    });

    const metrics = {
      summary: 'What it used over the last hour or more, asked for every ten seconds while somebody looks',
      params: Params,
      response: { 200: SandboxMetrics },
    };
    app.get('/v2/sandboxes/:id/metrics', { ...READ, schema: metrics }, async ({ caller, params }) => {
      const { id, size } = (await ownerOf(services, caller, params.id)).record;
      const { memoryTotalBytes, diskTotalBytes, samples } = services.sampler.historyOf(id);
      return {
        vcpu_count: size.vcpus,
        memory_total_bytes: memoryTotalBytes,
        disk_total_bytes: diskTotalBytes,
        samples: samples.map(sampleView),
      };
    });
  };

const sampleView = (sample: Sample) => ({
  at: sample.at.toISOString(),
  seconds: sample.seconds,
  cpu: sample.cpu,
  memory_used_bytes: sample.memoryUsedBytes,
  disk_used_bytes: sample.diskUsedBytes,
  processes: sample.processes,
  egress_sent_bytes: sample.egressSentBytes,
  egress_received_bytes: sample.egressReceivedBytes,
  preview_sent_bytes: sample.previewSentBytes,
  preview_received_bytes: sample.previewReceivedBytes,
});
