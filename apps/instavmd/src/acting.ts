/**
 * On whose behalf the daemon does what it does: known where a request comes in, asked where the audit trail is written, and carried
 * between the two by Node's async context. What a timer does, nobody asked for.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { type Actor, type Clock, type ShareId, SYSTEM } from '@instavm/core';
import type { Caller } from './auth.ts';

/** Who a request is of becomes known while it is served. */
export type ActingRequest = { actor: Actor };

const requests = new AsyncLocalStorage<ActingRequest>();

export const presentActor = (): Actor => requests.getStore()?.actor ?? SYSTEM;

export const actingFor = <T>(request: ActingRequest, act: () => T): T => requests.run(request, act);

/** Nobody who is known yet. */
export const stranger = (requestId: string, address: string): ActingRequest => ({
  actor: { ...SYSTEM, type: 'anonymous', requestId, address },
});

/** Somebody who opened a preview. */
export const visitorOf = (shareId: ShareId): ActingRequest => ({
  actor: { ...SYSTEM, type: 'visitor', id: shareId },
});

/** From now on the present request is of this caller. */
export function recognize({ account, keyId, keyPrefix }: Pick<Caller, 'account' | 'keyId' | 'keyPrefix'>): void {
  const request = requests.getStore();
  if (request === undefined) return;
  const who =
    keyId === null
      ? { type: 'user' as const, id: account.id, name: account.email }
      : { type: 'api_key' as const, id: String(keyId), name: keyPrefix };
  request.actor = { ...request.actor, ...who, accountId: account.id };
}

/** A clock whose timers forget in whose request they were set. */
export const nobodysTimers = (clock: Clock): Clock => ({
  now: () => clock.now(),
  schedule: (at, task) => clock.schedule(at, () => requests.run({ actor: SYSTEM }, task)),
});
