/** Every route that the official client can call has a defined answer. */
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Api, apiOf } from './api.ts';

/** Methods and paths of the contract's index, apart from those that this version serves fully (they have tests of their own). */
const NOT_OFFERED = `
POST /v1/ssh-keys
POST /v1/vms/{vm}/volumes
DELETE /v1/vms/{vm}/volumes/{vol}
POST /v1/volumes
DELETE /v1/ssh-keys/1
GET PATCH DELETE /v1/volumes/{vol}
GET POST /v1/volumes/{vol}/checkpoints
DELETE /v1/volumes/{vol}/checkpoints/{cp}
GET DELETE /v1/volumes/{vol}/files
POST /v1/volumes/{vol}/files/download
POST /v1/volumes/{vol}/files/upload
POST /v1/browser/interactions/click
POST /v1/browser/interactions/screenshot
POST /v1/browser/sessions/
GET DELETE /v1/browser/sessions/{bsid}
GET /v1/computeruse/{sid}/viewer-url
GET /v1/computeruse/{sid}/vnc/websockify
GET POST PUT PATCH DELETE OPTIONS HEAD /v1/computeruse/{sid}/state
GET DELETE /v1/recordings/{id}
GET /v1/recordings/{id}/download
POST /v1/sessions/{sid}/tape/start
GET DELETE /v1/tapes/{tape}
POST /v1/tapes/{tape}/branch
GET /v1/tapes/{tape}/diff
GET POST /v1/tapes/{tape}/events
GET /v1/tapes/{tape}/export
GET /v1/tapes/{tape}/lanes
POST /v1/tapes/{tape}/stop
POST /v1/templates
GET /v1/templates/{slug}
POST /v1/templates/{slug}/runs
POST /v1/vaults
GET PATCH DELETE /v1/vaults/{vault}
GET POST /v1/vaults/{vault}/credentials
DELETE /v1/vaults/{vault}/credentials/{cred}
POST /v1/vaults/{vault}/credentials/{cred}/rotate
GET /v1/vaults/{vault}/discover
GET /v1/vaults/{vault}/request-logs
GET POST /v1/vaults/{vault}/services
DELETE /v1/vaults/{vault}/services/{svc}
POST /v1/vaults/{vault}/services:from_template
POST /v1/webhooks/deliveries/{dlv}/replay
POST /v1/webhooks/endpoints
GET PATCH DELETE /v1/webhooks/endpoints/{ep}
POST /v1/webhooks/endpoints/{ep}/rotate-secret
POST /v1/webhooks/endpoints/{ep}/test
POST /v1/webhooks/endpoints/{ep}/verify
`;

/** Each list in the one envelope that the client accepts (contract §2.3). */
const EMPTY_LISTS: [path: string, body: unknown][] = [
  ['/v1/vms/{vm}/volumes', []],
  ['/v1/volumes?refresh_usage=false', []],
  ['/v1/snapshots?type=system', []],
  ['/v1/ssh-keys', { keys: [] }],
  ['/v1/browser/sessions/', { sessions: [] }],
  ['/v1/recordings?limit=50&offset=0', []],
  ['/v1/tapes', []],
  ['/v1/templates', { templates: [] }],
  ['/v1/vaults', { vaults: [] }],
  ['/v1/vaults/catalog', { templates: [] }],
  ['/v1/webhooks/deliveries', { items: [], next_cursor: null }],
  ['/v1/webhooks/endpoints', []],
];

describe('routes of the contract that this version does not offer', () => {
  let daemon: TestDaemon;
  let api: Api;
  let fill: (path: string) => string;

  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake' });
    api = apiOf(daemon);
    const sid = await api.createSession();
    const vm = (await api.request('GET', `/v1/sessions/status/${sid}`)).body.vm_id;
    fill = (path) =>
      path
        .replace('{sid}', sid)
        .replace('{vm}', vm)
        .replaceAll(/\{\w+\}/g, 'x1');
  });
  afterAll(() => daemon.stop());

  const calls = NOT_OFFERED.trim()
    .split('\n')
    .flatMap((line) => {
      const words = line.split(' ');
      return words.slice(0, -1).map((method) => [method, words.at(-1) as string] as const);
    });

  it.each(calls)('refuses %s %s with a reason', async (method, path) => {
    const answer = await api.request(method, fill(path));
    expect(answer.status).toBe(403);
    if (method !== 'HEAD') expect(answer.body).toMatchObject({ detail: 'not available on this server' });
  });

  it.each(EMPTY_LISTS)('answers GET %s with an empty list in its envelope', async (path, body) => {
    const answer = await api.request('GET', fill(path));
    expect([answer.status, answer.body]).toEqual([200, body]);
  });

  it('shows templates to callers without a key, and refuses them one in words', async () => {
    expect((await fetch(`${daemon.baseUrl}/v1/templates`)).status).toBe(200);
    const one = await fetch(`${daemon.baseUrl}/v1/templates/web`);
    expect([one.status, await one.json()]).toMatchObject([403, { detail: 'not available on this server' }]);
  });

  it('refuses a file that is sent in words, too', async () => {
    const body = new FormData();
    body.append('file', new Blob(['x'.repeat(100_000)]), 'notes.txt');
    const headers = { 'x-api-key': daemon.apiKey };
    const sent = await fetch(`${daemon.baseUrl}/v1/volumes/v/files/upload`, { method: 'POST', headers, body });
    expect([sent.status, await sent.json()]).toMatchObject([403, { detail: 'not available on this server' }]);
  });

  it('names a route that is in no contract as unknown', async () => {
    const answer = await api.request('GET', '/v1/nothing?api_key=k3y-in-a-query');
    expect([answer.status, answer.body.code]).toEqual([404, 'route_not_found']);
    expect(daemon.log()).not.toContain('k3y-in-a-query');
  });
});
