/** The HTTP application: plug-ins, authentication, validation and error answers; the routes are neighbours. */
import type {
  Credit,
  DomainRecord,
  Domains,
  EgressJournal,
  EgressLog,
  Meter,
  Rates,
  SandboxService,
  Shares,
} from '@instavm/core';
import type { Accounts, ApiKeys, LedgerReader } from '@instavm/store';
import type { KeyScope, SignUpMode } from '@instavm/wire';
import Fastify, { type FastifyBaseLogger, type FastifyInstance, type FastifyRequest } from 'fastify';
import { serializerCompiler, validatorCompiler } from 'fastify-type-provider-zod';
import type { Logger } from 'pino';
import type { z } from 'zod';
import { type ActingRequest, actingFor, stranger } from './acting.ts';
import type { Audit } from './audit.ts';
import { type Caller, requireScope } from './auth.ts';
import { type TrustedProxies, tellOfUnknownProxies } from './client-address.ts';
import type { DomainHealth } from './domains.ts';
import type { EgressRules } from './egress.ts';
import { AS_DECLARED, answerError, answerErrors, asInstaVMError, refuseMalformed } from './errors.ts';
import { Executions } from './executions.ts';
import type { Guest } from './guest/guest.ts';
import type { KeyConnections } from './key-connections.ts';
import type { Operations } from './operations/operations.ts';
import { traceRequests } from './operations/tracing.ts';
import type { PreviewAddresses } from './previews.ts';
import type { PtyTokens } from './pty-tokens.ts';
import type { QuotaBook } from './quota-book.ts';
import type { RateLimits } from './rate-limits.ts';
import { REQUEST_ID_HEADER, requestIdOf } from './request-id.ts';
import { accountRoutes } from './routes/account.ts';
import { auditRoutes } from './routes/audit.ts';
import { cliAuthRoutes } from './routes/cli-auth.ts';
import { creditRoutes } from './routes/credits.ts';
import { dashboardRoutes } from './routes/dashboard.ts';
import { documentationRoutes, openApi } from './routes/documentation.ts';
import { domainRoutes } from './routes/domains.ts';
import { egressRoutes } from './routes/egress.ts';
import { egressLogRoutes } from './routes/egress-log.ts';
import { executeRoutes } from './routes/execute.ts';
import { fileRoutes } from './routes/files.ts';
import { healthRoutes } from './routes/health.ts';
import { keyRoutes } from './routes/keys.ts';
import { measureRequests, metricsRoutes } from './routes/metrics.ts';
import { notYetRoutes } from './routes/not-yet.ts';
import { ptyRoutes } from './routes/ptys.ts';
import { quotaRoutes } from './routes/quotas.ts';
import { sandboxSnapshotRoutes } from './routes/sandbox-snapshots.ts';
import { sandboxRoutes } from './routes/sandboxes.ts';
import { sessionRoutes } from './routes/sessions.ts';
import { shareRoutes } from './routes/shares.ts';
import { signInRoutes } from './routes/sign-in.ts';
import { snapshotRoutes } from './routes/snapshots.ts';
import { transferRoutes } from './routes/transfer.ts';
import { whenClosed } from './routes/until-closed.ts';
import { uploadRoutes } from './routes/uploads.ts';
import { vmRoutes } from './routes/vms.ts';
import { watchRoutes } from './routes/watch.ts';
import type { Attempts } from './sign-in/attempts.ts';
import { callerOfRequest } from './sign-in/browser.ts';
import type { Pairings } from './sign-in/pairings.ts';
import type { SignIns } from './sign-in/sign-ins.ts';
import type { UsageSampler } from './usage-samples/sampler.ts';
import { serveWebSockets } from './ws/upgrade.ts';

/** For browsers and command lines that sign in. */
export type PeopleServices = {
  readonly signIns: SignIns;
  readonly signUpMode: SignUpMode;
  readonly attempts: Attempts;
  readonly pairings: Pairings;
  /** Where browsers reach this server; undefined: at this machine. */
  readonly publicUrl: URL | undefined;
};

export type Services = {
  readonly sandboxes: SandboxService<Guest>;
  readonly accounts: Accounts;
  readonly audit: Audit;
  readonly keys: ApiKeys;
  readonly keyConnections: KeyConnections;
  readonly people: PeopleServices;
  readonly quotas: QuotaBook;
  readonly rateLimits: RateLimits;
  readonly trustedProxies: TrustedProxies;
  readonly ptyTokens: PtyTokens;
  readonly egress: EgressRules;
  readonly egressLog: EgressLog;
  readonly egressJournal: EgressJournal;
  readonly shares: Shares;
  /** Undefined when this daemon serves none. */
  readonly previews: PreviewAddresses | undefined;
  readonly domains: Domains;
  readonly domainHealth: (record: DomainRecord) => Promise<DomainHealth>;
  readonly sampler: UsageSampler;
  readonly credit: Credit;
  readonly meter: Meter;
  readonly rates: Rates;
  readonly usage: LedgerReader;
  readonly operations: Operations;
};

export type DeclaredRoute = {
  readonly method: string;
  readonly url: string;
  readonly isPublic?: boolean;
  readonly scope?: KeyScope;
  /** For the OpenAPI document. */
  readonly bodies: {
    readonly isOptional: boolean;
    readonly form?: object | undefined;
    readonly consumes?: readonly string[] | undefined;
    readonly produces?: readonly string[] | undefined;
  };
};

declare module 'fastify' {
  interface FastifyRequest {
    /** Set before any handler of a route that needs a key. */
    caller: Caller;
    acting: ActingRequest;
  }
  interface FastifyInstance {
    /** Every route and who may use it. */
    readonly declared: readonly DeclaredRoute[];
  }
  interface FastifyContextConfig {
    /** True: nobody asks who it is. */
    isPublic?: boolean;
    /** What the key must be for. A route that is not public and says nothing is open to nobody. */
    scope?: KeyScope;
    /** JSON schema of a form that the handler reads itself, for the OpenAPI document. */
    form?: object;
  }
}

/** The official client shares one connection pool and does not retry a reset; Node's default of 5 s would reset idle ones. */
const KEEP_ALIVE_MS = 90_000;
const MAX_BODY_BYTES = 8 * 1024 * 1024;

export async function buildApp(services: Services, logger: Logger): Promise<FastifyInstance> {
  const app = Fastify({
    loggerInstance: logger as FastifyBaseLogger,
    keepAliveTimeout: KEEP_ALIVE_MS,
    bodyLimit: MAX_BODY_BYTES,
    genReqId: requestIdOf,
    trustProxy: services.trustedProxies,
    requestTimeout: 0,
    // Clients join a base URL with a trailing slash and a path.
    rewriteUrl: (request) => (request.url ?? '/').replace(/^\/{2,}/, '/'),
    forceCloseConnections: 'idle',
    // Refused before there is a route: a path that is no text, say.
    frameworkErrors: (error, request, reply) => answerError(error, request, reply),
    clientErrorHandler: refuseMalformed,
    // Who offers another protocol (h2c, as curl --http2 does) is answered as if it had not (RFC 9110, 7.8).
    http: { shouldUpgradeCallback: ({ headers }) => headers.upgrade?.toLowerCase() === 'websocket' },
  });
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  // Some clients announce JSON on every request, also on one that has no body.
  const parseJson = app.getDefaultJsonParser('error', 'error');
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') done(null, undefined);
    else parseJson(request, body as string, done);
  });
  app.decorateRequest('caller', null as unknown as Caller);
  app.decorateRequest('acting', null as unknown as ActingRequest);
  const declared: DeclaredRoute[] = [];
  app.decorate('declared', declared);
  app.addHook('onRoute', ({ method, url, config: { form, ...config } = {}, schema }) => {
    const { body, consumes, produces } = schema ?? {};
    const bodies = { isOptional: (body as z.ZodType | undefined)?.safeParse(undefined).success ?? false, form };
    for (const each of [method].flat())
      declared.push({ method: each, url, ...config, bodies: { ...bodies, consumes, produces } });
  });
  answerErrors(app);
  tellOfUnknownProxies(app, services.trustedProxies);
  traceRequests(app);
  measureRequests(app, services.operations);
  const executions = new Executions();
  app.addHook(
    'onRequest',
    async (request, reply) => void reply.headers({ ...AS_DECLARED, [REQUEST_ID_HEADER]: request.id }),
  );
  app.addHook('onRequest', (request, _, done) => {
    request.acting = stranger(request.id, request.ip);
    actingFor(request.acting, done);
  });
  // The events of a body come in the context of its connection.
  app.addHook('preValidation', (request, _, done) => actingFor(request.acting, done));
  app.addHook('onError', async ({ routeOptions, method, acting }, _, error) =>
    actingFor(acting, () => services.audit.refused(asInstaVMError(error), `${method} ${routeOptions.url ?? ''}`)),
  );
  app.addHook('onRequest', async (request: FastifyRequest, reply) => {
    const { isPublic, scope } = request.routeOptions.config;
    if (isPublic || request.is404) return;
    const caller = await callerOfRequest(services, request);
    requireScope(caller, scope);
    request.caller = caller;
    whenClosed(
      reply,
      services.keyConnections.hold(caller, () => request.raw.socket.destroy()),
    );
  });
  await openApi(app);
  await app.register(healthRoutes(services));
  await app.register(metricsRoutes(services));
  await app.register(documentationRoutes);
  await app.register(sessionRoutes(services));
  await app.register(executeRoutes(services, executions));
  await app.register(transferRoutes(services));
  await app.register(vmRoutes(services));
  await app.register(ptyRoutes(services));
  await app.register(snapshotRoutes(services));
  await app.register(shareRoutes(services));
  await app.register(domainRoutes(services));
  await app.register(accountRoutes);
  await app.register(keyRoutes(services));
  await app.register(creditRoutes(services));
  await app.register(signInRoutes(services));
  await app.register(cliAuthRoutes(services));
  await app.register(dashboardRoutes);
  await app.register(auditRoutes(services));
  await app.register(quotaRoutes(services));
  await app.register(egressRoutes(services));
  await app.register(egressLogRoutes(services));
  await app.register(sandboxRoutes(services));
  await app.register(sandboxSnapshotRoutes(services));
  await app.register(fileRoutes(services));
  await app.register(uploadRoutes(services));
  await app.register(watchRoutes(services));
  await app.register(notYetRoutes);
  serveWebSockets(app, services);
  return app;
}
