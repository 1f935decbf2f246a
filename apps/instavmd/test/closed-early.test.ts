/** Clients that are gone before their answer has begun: what waits for the end of a request does not wait for ever. */
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import Fastify, { type FastifyPluginAsync } from 'fastify';
import { serializerCompiler, validatorCompiler } from 'fastify-type-provider-zod';
import { expect, it } from 'vitest';
import type { Services } from '../src/app.ts';
import type { Caller } from '../src/auth.ts';
import { Executions } from '../src/executions.ts';
import { KeyConnections } from '../src/key-connections.ts';
import { PtyTokens } from '../src/pty-tokens.ts';
import { executeRoutes } from '../src/routes/execute.ts';
import { keyRoutes } from '../src/routes/keys.ts';

const caller = { account: { id: 'acct_a' }, sandboxMetadata: null } as Caller;

/** Asks as a client that leaves when `gone` is called, which resolves when the server knows. */
async function asking(routes: (gone: () => Promise<void>) => FastifyPluginAsync, request: string) {
  let answer: ServerResponse | undefined;
  const gone = async (): Promise<void> => {
    client.destroy();
    if (answer) await once(answer, 'close');
  };
  const app = Fastify().setValidatorCompiler(validatorCompiler).setSerializerCompiler(serializerCompiler);
  app.addHook('preHandler', async (asked, reply) => {
    asked.caller = caller;
    answer = reply.raw;
  });
  await app.register(routes(gone));
  await app.listen({ host: '127.0.0.1', port: 0 });
  const client = connect((app.server.address() as AddressInfo).port, '127.0.0.1');
  client.write(request);
  return app;
}

it('a key that such a client revokes takes what is open by it along', async () => {
  const keyConnections = new KeyConnections();
  const { promise: isCut, resolve: cut } = Promise.withResolvers<void>();
  keyConnections.hold({ keyId: 7, signInId: null, expiresAt: null, secretEndsAt: null }, cut);
  const parts = { keyConnections, ptyTokens: new PtyTokens() };
  const app = await asking(
    (gone) => keyRoutes({ ...parts, keys: { revoke: () => gone().then(() => true) } } as unknown as Services),
    'DELETE /v1/api-keys/7 HTTP/1.1\r\nHost: x\r\n\r\n',
  );
  await isCut;
  keyConnections.stop();
  await app.close();
});

it('a command that such a client asks for is cancelled, and nothing is kept of it', async () => {
  const { promise: asked, resolve } = Promise.withResolvers<AbortSignal>();
  async function* run(_messages: unknown, { signal }: { signal: AbortSignal }) {
    resolve(AbortSignal.any([signal]));
    yield await once(signal, 'abort');
  }
  const owner = {
    record: { accountId: 'acct_a', metadata: {}, expiresAt: new Date(Date.now() + 3_600_000) },
    hold: () => () => {},
    guest: async () => ({ agent: { exec: { run } } }),
  };
  const sandboxes = (gone: () => Promise<void>) => ({ get: () => gone().then(() => owner) });
  const body = JSON.stringify({ session_id: crypto.randomUUID(), command: 'sleep 3600', language: 'bash' });
  const head = `Host: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}`;
  const app = await asking(
    (gone) => executeRoutes({ sandboxes: sandboxes(gone) } as unknown as Services, new Executions()),
    `POST /execute HTTP/1.1\r\n${head}\r\n\r\n${body}`,
  );
  expect((await asked).aborted).toBe(true);
  await app.close();
});
