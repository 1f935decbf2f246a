/** The caller's account (contract §12). */
import { User } from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { READ } from '../auth.ts';

export const accountRoutes: FastifyPluginAsyncZod = async (app) => {
  app.get('/v1/users/me', { ...READ, schema: { response: { 200: User } } }, async ({ caller: { account } }) => ({
    id: account.id,
    email: account.email,
    name: account.name,
    is_verified: account.isVerified,
  }));
};
