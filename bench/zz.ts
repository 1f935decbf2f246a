import { startTestDaemon } from '@instavm/testing';
import { InstaVM } from 'instavm';
import { once } from 'node:events';
import { WebSocket } from 'ws';
import { execSync } from 'node:child_process';
const daemon = await startTestDaemon({ vmm: 'qemu' });
const client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
const s = await client.sandboxes.create();
const headers = { 'x-api-key': daemon.apiKey };
async function attach(argv: string[]) {
  const base = `/v1/sessions/${s.id}/pty`;
  const r = await fetch(`${daemon.baseUrl}${base}/sessions`, { method: 'POST', headers: { ...headers, 'content-type': 'application/json' }, body: JSON.stringify({ argv }) });
  const { id } = (await r.json()) as any;
  const ws = new WebSocket(`${daemon.baseUrl.replace('http', 'ws')}${base}/${id}/connect`, { headers });
  await once(ws, 'open');
  return ws;
}
const N = 100 * 1024 * 1024;
for (let i = 0; i < 3; i++) {
  const ws = await attach(['bash', '-c', `stty raw -echo; echo go; read -rn1; exec head -c ${N} /dev/zero`]);
  let got = 0, frames = 0;
  await new Promise<void>((res) => ws.on('message', (d: Buffer, b) => { if (b) { got += d.length; if (got >= 3) res(); } }));
  const done = new Promise<void>((res) => ws.on('message', (d: Buffer, b) => { if (b) frames++; if (got >= N) res(); }));
  const t = performance.now(); ws.send(Buffer.from('x'));
  if (i === 2) setTimeout(() => { console.log(execSync('timeout 2 strace -c -p ' + execSync('pgrep -n qemu-system').toString().trim() + ' 2>&1 | head -20; timeout 1 strace -p ' + execSync('pgrep -n qemu-system').toString().trim() + ' 2>&1 | tail -60', {timeout: 20000}).toString()); }, 500);
  await done;
  console.log((N / 1e6 / ((performance.now() - t) / 1000)).toFixed(1), 'MB/s', frames, 'frames', (got / frames).toFixed(0), 'B/frame');
  ws.close();
}
client.close(); await daemon.stop();
