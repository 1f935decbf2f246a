/**
 * The login of a program by its person's browser (contract §12.1): authorization code with PKCE, and the answer on a listener of
 * ours on the loopback interface (RFC 8252 §7.3, RFC 7636).
 */
import { createHash, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { hostname } from 'node:os';
import { InstaVMError } from 'instavm';
import { ask } from './account.ts';

const WAIT_MS = 300_000;

export type LoggedIn = { readonly apiKey: string; readonly email: string };

/** @param show is given the address that the person opens. @throws InstaVMError */
export async function loginByBrowser(baseUrl: string, show: (url: string) => void): Promise<LoggedIn> {
  const state = randomBytes(32).toString('base64url');
  const verifier = randomBytes(32).toString('base64url');
  const server = createServer();
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  try {
    const { port } = server.address() as AddressInfo;
    const anyone = { apiKey: undefined, baseUrl };
    const started = await ask<{ pairing_id: string; login_url: string }>(anyone, 'POST', '/api/cli-auth/start', {
      state,
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256',
      redirect_uri: `http://127.0.0.1:${port}/callback`,
      hostname: hostname(),
    });
    const answer = new Promise<string>((resolve, reject) => {
      const tooLate = new InstaVMError('login_timeout', 'nobody answered in the browser within five minutes');
      setTimeout(() => reject(tooLate), WAIT_MS).unref();
      server.on('request', (request, response) => takeCallback(request, response, state, resolve, reject));
    });
    show(started.login_url);
    const exchange = { pairing_id: started.pairing_id, code: await answer, code_verifier: verifier };
    const key = await ask<{ api_key: string; user: { email: string } }>(
      anyone,
      'POST',
      '/api/cli-auth/exchange',
      exchange,
    );
    return { apiKey: key.api_key, email: key.user.email };
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

function takeCallback(
  request: IncomingMessage,
  response: ServerResponse,
  state: string,
  resolve: (code: string) => void,
  reject: (error: InstaVMError) => void,
): void {
  const url = URL.parse(request.url ?? '', 'http://127.0.0.1');
  const say = (status: number, sentence: string): void => {
    response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', connection: 'close' }).end(sentence);
  };
  const code = url?.searchParams.get('code');
  if (url?.pathname !== '/callback') say(404, 'There is nothing here.');
  // Anyone on this machine can call; only our own browser knows the state, so others are not an answer.
  else if (url.searchParams.get('state') !== state) say(400, 'This is not the login that the command waits for.');
  else if (code) {
    say(200, 'You are logged in. You can close this page.');
    resolve(code);
  } else {
    say(400, 'The login was refused. You can close this page.');
    reject(new InstaVMError('login_refused', 'the login was refused in the browser'));
  }
}
