/** Routes of the account, which the client library leaves out: it is for programs that have a key. */
import { errorFromBody, InstaVMError } from 'instavm';
import type { Connection } from './connect.ts';

/** @throws InstaVMError */
export async function ask<T>(connection: Connection, method: 'GET' | 'POST', path: string, json?: unknown): Promise<T> {
  const { apiKey, baseUrl } = connection;
  const headers: Record<string, string> = {};
  if (apiKey !== undefined) headers['x-api-key'] = apiKey;
  if (json !== undefined) headers['content-type'] = 'application/json';
  const body = json === undefined ? null : JSON.stringify(json);
  const response = await fetch(baseUrl + path, { method, headers, body }).catch((cause: unknown) => {
    throw new InstaVMError('connection_failed', `no answer from ${baseUrl}`, {
      cause,
      hint: 'Is the daemon running? Start it with: npx instavm serve',
    });
  });
  const text = await response.text();
  if (!response.ok) throw errorFromBody(response.status, text);
  return JSON.parse(text) as T;
}

export type User = { readonly id: string; readonly email: string; readonly name: string };

export const whoIs = (connection: Connection): Promise<User> => ask(connection, 'GET', '/v1/users/me');
