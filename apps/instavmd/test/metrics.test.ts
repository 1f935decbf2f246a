/** `/metrics`: who may read it, what a scraper understands, and that the reference lists the same. */
import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Api, apiOf, ExecSocket } from './api.ts';

type Sample = { readonly name: string; readonly labels: Readonly<Record<string, string>>; readonly value: number };
type Family = { readonly name: string; readonly type: string; readonly samples: readonly Sample[] };

/** The parser of Prometheus' own client library. */
const PARSER = `
import json, sys
from prometheus_client.parser import text_string_to_metric_families as families
print(json.dumps([
    {"name": f.name + ("_total" if f.type == "counter" else ""), "type": f.type,
     "samples": [{"name": s.name, "labels": s.labels, "value": s.value} for s in f.samples]}
    for f in families(sys.stdin.read())]))
`;
const PYTHON = join(import.meta.dirname, '../../../.cache/venvs/current/bin/python');
const TOKEN = 'a-token-of-the-scraper';
const REFERENCE = join(import.meta.dirname, '../../../docs/reference/metrics.md');

describe('metrics', () => {
  let daemon: TestDaemon;
  let api: Api;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake', env: { INSTAVM_METRICS_TOKEN: TOKEN, INSTAVM_MAX_SANDBOXES: '1' } });
    api = apiOf(daemon);
  });
  afterAll(() => daemon.stop());

  const scrape = async (): Promise<Family[]> => {
    const response = await fetch(`${daemon.baseUrl}/metrics`, { headers: { authorization: `Bearer ${TOKEN}` } });
    expect([response.status, response.headers.get('content-type')]).toEqual([200, expect.stringContaining('0.0.4')]);
    const parsed = spawnSync(PYTHON, ['-c', PARSER], { input: await response.text(), encoding: 'utf8' });
    expect(parsed.stderr).toBe('');
    return JSON.parse(parsed.stdout) as Family[];
  };
  const sampleOf = (families: Family[], name: string, labels: Record<string, string> = {}): number | undefined =>
    families
      .flatMap(({ samples }) => samples)
      .find(
        (each) => each.name === name && Object.entries(labels).every(([label, value]) => each.labels[label] === value),
      )?.value;

  it('are closed to API keys, to other tokens, and to everyone where no token is set', async () => {
    const statusWith = async (headers: Record<string, string>, baseUrl = daemon.baseUrl) =>
      (await fetch(`${baseUrl}/metrics`, { headers })).status;
    for (const authorization of ['Bearer other-token-of-nobody', `Basic ${TOKEN}`, TOKEN, `Bearer ${daemon.apiKey}`])
      expect(await statusWith({ authorization })).toBe(401);
    expect(await statusWith({ 'x-api-key': daemon.apiKey })).toBe(401);
    const closed = await startTestDaemon({ vmm: 'fake' });
    expect(await statusWith({ authorization: 'Bearer ' }, closed.baseUrl)).toBe(403);
    await closed.stop();
  });

  it('tell what was made, refused, opened and asked', async () => {
    const id = await api.createSession();
    expect((await api.json('POST', '/v2/sandboxes', {})).body.code).toBe('quota_exceeded');
    await api.request('GET', `/v2/sandboxes/${id}`);
    await api.request('GET', `/nowhere/${id}`);
    const exec = new ExecSocket(api, id);
    await exec.start({ script: 'read line' });
    const families = await scrape();
    exec.socket.close();
    const step = { step: 'sandbox.create', source: 'template', outcome: 'ok' };
    expect(sampleOf(families, 'instavm_step_duration_seconds_count', step)).toBe(1);
    expect(sampleOf(families, 'instavm_sandboxes', { state: 'running' })).toBe(1);
    expect(sampleOf(families, 'instavm_sandboxes', { state: 'suspended' })).toBe(0);
    expect(sampleOf(families, 'instavm_errors_total', { code: 'quota_exceeded' })).toBe(1);
    expect(sampleOf(families, 'instavm_errors_total', { code: 'capacity_unavailable' })).toBe(0);
    expect(sampleOf(families, 'instavm_websockets', { kind: 'exec' })).toBe(1);
    expect(sampleOf(families, 'instavm_build_info', { backend: 'fake' })).toBe(1);
    const request = { method: 'GET', route: '/v2/sandboxes/:id', status: '200' };
    expect(sampleOf(families, 'instavm_http_request_duration_seconds_count', request)).toBe(1);
    expect(sampleOf(families, 'instavm_meter_lag_seconds')).toBeLessThan(60);
    expect(sampleOf(families, 'process_resident_memory_bytes')).toBeGreaterThan(1e7);
    await expect.poll(async () => sampleOf(await scrape(), 'instavm_websockets', { kind: 'exec' })).toBe(0);
  });

  it('have no label that names a sandbox, an account or a path that somebody made up', async () => {
    const { body } = await api.request('GET', '/v2/sandboxes');
    const response = await fetch(`${daemon.baseUrl}/metrics`, { headers: { authorization: `Bearer ${TOKEN}` } });
    const text = await response.text();
    expect(body.sandboxes.length).toBeGreaterThan(0);
    for (const { id } of body.sandboxes) expect(text).not.toContain(id);
    expect(text).not.toContain('/nowhere');
  });

  it('are those that the reference lists, with the same types and labels', async () => {
    const page = await readFile(REFERENCE, 'utf8');
    const rows = Array.from(page.matchAll(/^\| `([a-z_]+)` \| (\w+) \|([^|]*)\|/gm), ([, name, type, labels]) => ({
      ...{ name, type },
      labels: Array.from((labels ?? '').matchAll(/`(\w+)`/g), (match) => match[1]).sort(),
    }));
    const families = await scrape();
    const kinds = families.map(({ name, type }) => ({ name, type }));
    const byName = (a: { name?: string | undefined }, b: { name?: string | undefined }) =>
      String(a.name).localeCompare(String(b.name));
    expect(kinds.sort(byName)).toEqual(rows.map(({ name, type }) => ({ name, type })).sort(byName));
    for (const { name, labels } of rows) {
      for (const { labels: present } of families.find((each) => each.name === name)?.samples ?? [])
        expect(
          Object.keys(present)
            .filter((label) => label !== 'le')
            .sort(),
          name,
        ).toEqual(labels);
    }
  });
});
