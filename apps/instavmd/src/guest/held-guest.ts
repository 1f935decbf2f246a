/** The guest for a request that uses it: woken if it may be, and counted as used until the request is over. */
import type { SandboxOwner, Wake } from '@instavm/core';
import type { FastifyReply } from 'fastify';
import { whenClosed } from '../routes/until-closed.ts';
import type { Guest } from './guest.ts';

/** @throws as `SandboxOwner.guest` */
export function heldGuest(
  owner: SandboxOwner<Guest>,
  reply: FastifyReply,
  wake: Exclude<Wake, 'never'> = 'suspended',
): Promise<Guest> {
  whenClosed(reply, owner.hold());
  return owner.guest(wake);
}
