import { Command } from 'commander';
import { type AuditEvent, type AuditFilter, type AuditStatus, type InstaVM, InstaVMError } from 'instavm';
import { duration, integer } from '../arguments.ts';
import { clientOf, sandboxOf } from '../connect.ts';
import { help } from '../help.ts';
import { type Columns, headerOf, printable, printJson, rowOf } from '../output.ts';

type Options = {
  sandbox?: string;
  group?: string;
  type?: string;
  status?: AuditStatus;
  since?: number;
  limit: number;
  follow?: boolean;
  types?: boolean;
  json?: boolean;
};

const COLUMNS: Columns = [
  ['TIME', 20],
  ['ID', 9],
  ['EVENT', 24],
  ['STATUS', 8],
  ['BY', 20, 10],
  ['WHAT', 44],
  ['WHY', 0, 16],
];
const MOST_SECONDS = 366 * 86_400;

export const eventsCommand = new Command('events')
  .description('what was done in the account, by whom, newest last')
  .argument('[id]', 'one event (evt_…), with all that is known of it')
  .option('--sandbox <id>', 'only of this sandbox or VM')
  .option('--group <name>', 'only of this group, such as sandbox or key')
  .option('--type <name>', 'only of this type, such as sandbox.failed')
  .option('--status <name>', 'only success, failure, error or denied')
  .option('--since <time>', 'only the last 15m, 2h, 7d …', duration(MOST_SECONDS))
  .option('--limit <n>', 'how many of the newest', integer(1, 10_000), 50)
  .option('-f, --follow', 'go on with what is done, until interrupted')
  .option('--types', 'list the groups and types that there are')
  .option('--json', 'one JSON object a line')
  .addHelpText(
    'after',
    help({
      json: 'one a line: { id, at, type, group, status, actor, resource, sandboxId, incarnationId, requestId, sourceIp, error, details }; with --types { group: type[] }',
      examples: ['events --since 1h --follow', 'events --sandbox 3f2a --status failure', 'events evt_42'],
    }),
  )
  .action(async (id: string | undefined, options: Options, command: Command) => {
    const { limit, since, follow, types, json } = options;
    const client = clientOf(command);
    if (types) {
      const catalog = await client.audit.catalog();
      return json ? printJson(catalog) : printTypes(catalog);
    }
    if (id !== undefined) {
      const event = await client.audit.get(id);
      return json ? printJson(event) : printOne(event);
    }
    const filter = await filterOf(client, options);
    const print = (event: AuditEvent): void => (json ? printJson(event) : console.log(rowOf(COLUMNS, cellsOf(event))));
    const [newest] = (await client.audit.page(filter, { limit: 1 })).events;
    if (!json) console.log(headerOf(COLUMNS));
    if (newest !== undefined) for (const event of await past(client, filter, newest, limit, since)) print(event);
    if (!follow) return;
    for await (const event of client.audit.follow(filter, newest?.id ?? 'evt_0')) print(event);
    throw new InstaVMError('connection_lost', 'the server has ended the events', { hint: 'Is it being stopped?' });
  });

async function filterOf(client: InstaVM, { sandbox, group, type, status }: Options): Promise<AuditFilter> {
  return { group, type, status, sandboxId: sandbox && (await sandboxOf(client, sandbox)).id };
}

/** Oldest first, up to the newest: what is later, is followed. */
async function past(
  client: InstaVM,
  filter: AuditFilter,
  newest: AuditEvent,
  limit: number,
  sinceSeconds: number | undefined,
): Promise<AuditEvent[]> {
  const from = sinceSeconds === undefined ? 0 : Date.now() - sinceSeconds * 1_000;
  const found: AuditEvent[] = [];
  for await (const event of client.audit.events(filter)) {
    if (numberOf(event) > numberOf(newest)) continue;
    if (found.length === limit || event.at.getTime() < from) break;
    found.push(event);
  }
  return found.reverse();
}

const numberOf = ({ id }: AuditEvent): number => Number(id.slice('evt_'.length));

function cellsOf({ at, id, type, status, actor, resource, details, error }: AuditEvent): string[] {
  const why = error ?? (typeof details.reason === 'string' ? details.reason : '');
  const host = typeof details.host === 'string' ? `${details.host} ` : '';
  return [
    `${at.toISOString().slice(0, 19)}Z`,
    id,
    type,
    status,
    printable(actor.name ?? actor.type),
    resource === null ? '' : `${resource.type} ${resource.id}`,
    printable(host + why),
  ];
}

function printOne(event: AuditEvent): void {
  console.log(headerOf(COLUMNS));
  console.log(rowOf(COLUMNS, cellsOf(event)));
  const { requestId, sourceIp, incarnationId, details } = event;
  // JSON escapes control characters.
  console.log(JSON.stringify({ requestId, sourceIp, incarnationId, details }, null, 2));
}

function printTypes(catalog: Readonly<Record<string, readonly string[]>>): void {
  for (const [group, types] of Object.entries(catalog)) console.log(`${group}\n  ${types.join('\n  ')}`);
}
