/** The caller's account (contract §12). */
import { User } from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';

export const accountRoutes: FastifyPluginAsyncZod = async (app) => {
  app.get('/v1/users/me', { schema: { response: { 200: User } } }, async ({ account }) => ({
    id: account.id,
    email: account.email,
    name: account.name,
    is_verified: account.isVerified,
  }));
};
