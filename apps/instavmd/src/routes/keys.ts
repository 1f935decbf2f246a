/** API keys of the account (contract §12), with rotation as our addition. The collection has a trailing slash, and only with it is it a route. */
import type { ApiKey as StoredKey } from '@instavm/store';
import {
  ApiKey,
  CreateKeyRequest,
  InstaVMError,
  KeyRevoked,
  NewApiKey,
  RotateKeyRequest,
  UpdateKeyRequest,
} from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { FULL, keyEndOf, requireNoLonger } from '../auth.ts';
import { keyRight } from '../key-connections.ts';
import { whenClosed } from './until-closed.ts';

const Params = z.object({ id: z.string() });
const DEFAULT_NAME = 'API key';
const MAX_NAME_LENGTH = 100;
const NEVER_KEPT = { 'cache-control': 'no-store' };

export const keyRoutes =
  ({ keys, keyConnections, ptyTokens }: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const created = {
      summary: 'Make a key; its secret is in this answer and nowhere else',
      body: CreateKeyRequest.nullish(),
      response: { 200: NewApiKey },
    };
    app.post('/v1/api-keys/', { ...FULL, schema: created }, async ({ caller, body, log }, reply) => {
      const {
        name,
        description = null,
        scope,
        sandbox_metadata = null,
        expires_at = keyEndOf(caller),
      } = body ?? CreateKeyRequest.parse({});
      requireFuture(expires_at);
      requireNoLonger(caller, expires_at);
      const { key, secret } = await keys.create(caller.account.id, {
        name: name ?? (description?.slice(0, MAX_NAME_LENGTH) || DEFAULT_NAME),
        description,
        scope,
        sandboxMetadata: sandbox_metadata,
        expiresAt: expires_at,
      });
      log.info({ accountId: caller.account.id, keyId: key.id, scope }, 'API key made');
      reply.headers(NEVER_KEPT);
      return { ...keyView(key), api_key: secret };
    });

    const listed = { summary: 'Keys that were not revoked, newest first', response: { 200: z.array(ApiKey) } };
    app.get('/v1/api-keys/', { ...FULL, schema: listed }, async ({ caller }) =>
      (await keys.list(caller.account.id)).map(keyView),
    );

    const one = { params: Params, response: { 200: ApiKey } };
    app.get('/v1/api-keys/:id', { ...FULL, schema: one }, async ({ caller, params }) =>
      keyView(found(await keys.find(caller.account.id, keyIdOf(params.id)), params.id)),
    );

    const changed = { ...one, summary: 'Change its name, description or end', body: UpdateKeyRequest };
    app.patch('/v1/api-keys/:id', { ...FULL, schema: changed }, async ({ caller, params, body }, reply) => {
      const { name, description, expires_at } = body;
      requireFuture(expires_at ?? null);
      if (expires_at !== undefined) requireNoLonger(caller, expires_at);
      const change = {
        ...(name !== undefined && { name }),
        ...(description !== undefined && { description }),
        ...(expires_at !== undefined && { expiresAt: expires_at }),
      };
      const key = found(await keys.update(caller.account.id, keyIdOf(params.id), change), params.id);
      if (expires_at !== undefined) {
        const right = keyRight(key.id);
        ptyTokens.forget(right);
        // As all of these after the answer: what was being let in meanwhile is held by then.
        whenClosed(reply, () => keyConnections.endAt(right, expires_at));
      }
      return keyView(key);
    });

    const revoked = {
      summary: 'Revoke it, at once and for good, with what is open by it',
      params: Params,
      response: { 200: KeyRevoked },
    };
    app.delete('/v1/api-keys/:id', { ...FULL, schema: revoked }, async ({ caller, params, log }, reply) => {
      const id = keyIdOf(params.id);
      found((await keys.revoke(caller.account.id, id)) || undefined, params.id);
      // After the answer, which may be one to this very key.
      log.info({ accountId: caller.account.id, keyId: id }, 'API key revoked');
      ptyTokens.forget(keyRight(id));
      whenClosed(reply, () => keyConnections.revoke(keyRight(id)));
      return { id, revoked: true as const };
    });

    const rotated = {
      summary: 'A new secret for the same key; the old one ends with what is open by it, now or after a grace',
      params: Params,
      body: RotateKeyRequest.nullish(),
      response: { 200: NewApiKey },
    };
    app.post('/v1/api-keys/:id/rotate', { ...FULL, schema: rotated }, async ({ caller, params, body }, reply) => {
      const graceMs = (body?.grace_seconds ?? 0) * 1000;
      const id = keyIdOf(params.id);
      requireNoLonger(caller, found(await keys.find(caller.account.id, id), params.id).expiresAt);
      const { key, secret } = found(await keys.rotate(caller.account.id, id, graceMs), params.id);
      const right = keyRight(key.id);
      const graceEnds = new Date(Date.now() + graceMs);
      ptyTokens.forget(right);
      whenClosed(reply, () => (graceMs > 0 ? keyConnections.replaced(right, graceEnds) : keyConnections.cut(right)));
      reply.headers(NEVER_KEPT);
      return { ...keyView(key), api_key: secret };
    });
  };

/** @throws key_not_found */
function keyIdOf(text: string): number {
  return /^\d{1,15}$/.test(text) ? Number(text) : found<number>(undefined, text);
}

/** @throws key_not_found */
function found<T>(value: T | undefined, id: string): T {
  if (value === undefined) throw new InstaVMError('key_not_found', `there is no key ${id.slice(0, 80)}`);
  return value;
}

/** @throws invalid_argument */
function requireFuture(expiresAt: Date | null): void {
  if (expiresAt !== null && expiresAt.getTime() <= Date.now())
    throw new InstaVMError('invalid_argument', 'expires_at: is in the past');
}

const keyView = (key: StoredKey) => ({
  id: key.id,
  name: key.name,
  description: key.description || key.name,
  prefix: key.prefix,
  scope: key.scope,
  sandbox_metadata: key.sandboxMetadata && { ...key.sandboxMetadata },
  created_at: key.createdAt.toISOString(),
  expires_at: key.expiresAt?.toISOString() ?? null,
  last_used_at: key.lastUsedAt?.toISOString() ?? null,
});
