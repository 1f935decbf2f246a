/** A port of a sandbox as an HTTPS address, fetched with its certificate verified: the environment says whom to trust (NODE_EXTRA_CA_CERTS). */
import { get } from 'node:https';
import type { LookupFunction } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { InstaVM } from 'instavm';

/** Names under localhost are this machine: browsers know it, and not every resolver does. */
const lookup: LookupFunction = (_host, _options, done) => done(null, [{ address: '127.0.0.1', family: 4 }]);

const client = new InstaVM();
const sandbox = await client.sandboxes.create();
try {
  await sandbox.files.write('/srv/index.html', 'Hello from a microVM.\n');
  await sandbox.run('cd /srv && setsid python3 -m http.server 8000 >/dev/null 2>&1 &');
  const { url } = await sandbox.shares.create({ port: 8000, isPublic: true });
  for (let answer = await fetched(url); ; answer = await fetched(url)) {
    // Until the service listens, the preview says so.
    if (answer.status === 502) continue;
    console.log(`${url}\n${answer.status}, certificate of ${answer.issuer}: ${answer.body.trim()}`);
    break;
  }
} finally {
  await sandbox.delete();
  client.close();
}

function fetched(url: string): Promise<{ status: number; issuer: string; body: string }> {
  return new Promise((resolve, reject) => {
    get(url, { lookup }, async (answer) => {
      const { O, CN } = (answer.socket as TLSSocket).getPeerCertificate().issuer;
      let body = '';
      for await (const chunk of answer) body += String(chunk);
      resolve({ status: answer.statusCode ?? 0, issuer: `${O}, ${CN}`, body });
    }).on('error', reject);
  });
}
