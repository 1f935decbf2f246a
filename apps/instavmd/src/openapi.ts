/** Prints the OpenAPI document of the public API: the routes as the daemon registers them, with nothing behind them. */
import { pino } from 'pino';
import { buildApp, type Services } from './app.ts';
import { Metrics } from './operations/metrics.ts';
import { PtyTokens } from './pty-tokens.ts';

const nothing = (): never => {
  throw new Error('the document is made without a daemon');
};
const refusing = new Proxy({}, { get: nothing });
const services: Services = {
  sandboxes: refusing as Services['sandboxes'],
  accounts: refusing as Services['accounts'],
  audit: refusing as Services['audit'],
  keys: refusing as Services['keys'],
  keyConnections: refusing as Services['keyConnections'],
  people: {} as Services['people'],
  ptyTokens: new PtyTokens(),
  egress: refusing as Services['egress'],
  egressLog: refusing as Services['egressLog'],
  egressJournal: refusing as Services['egressJournal'],
  shares: refusing as Services['shares'],
  previews: undefined,
  domains: refusing as Services['domains'],
  domainHealth: nothing,
  sampler: refusing as Services['sampler'],
  credit: refusing as Services['credit'],
  meter: refusing as Services['meter'],
  rates: refusing as Services['rates'],
  usage: refusing as Services['usage'],
  quotas: refusing as Services['quotas'],
  rateLimits: refusing as Services['rateLimits'],
  trustedProxies: () => false,
  operations: { metrics: new Metrics() } as Services['operations'],
};

const app = await buildApp(services, pino({ level: 'silent' }));
await app.ready();
process.stdout.write(`${JSON.stringify(app.swagger(), null, 2)}\n`);
await app.close();
