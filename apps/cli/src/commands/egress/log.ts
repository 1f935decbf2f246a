import { Command } from 'commander';
import { type EgressLogEntry, InstaVMError } from 'instavm';
import { integer } from '../../arguments.ts';
import { clientOf, sandboxOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { type Columns, headerOf, printable, printJson, rowOf, size } from '../../output.ts';

type Options = { follow?: boolean; denied?: boolean; host?: string; limit: number; json?: boolean };

const COLUMNS: Columns = [
  ['TIME', 20],
  ['VERDICT', 10],
  ['DESTINATION', 30],
  ['ADDRESS', 16],
  ['RULE', 26, 12],
  ['↑', 9],
  ['↓', 9],
  ['MS', 7],
  ['REASON', 0, 16],
];

export const logCommand = new Command('log')
  .description('what the sandbox tried to reach, newest last')
  .argument('<sandbox>', 'id, VM or name')
  .option('-f, --follow', 'go on with what it tries, until interrupted')
  .option('--denied', 'only what was denied')
  .option('--host <name>', 'only this host and those below it')
  .option('--limit <n>', 'how many of the newest', integer(1, 1000), 100)
  .option('--json', 'one JSON object a line')
  .addHelpText(
    'after',
    help({
      json: 'one a line: { kind, id, at, host, port, address, allowed, rule, outcome, reason, bytesSent, bytesReceived, durationMs, repeated }, or { kind: "gap", missed } for what came too fast',
      examples: ['egress log 3f2a --follow --denied', ['egress test 3f2a pypi.org:443', 'why it is denied']],
    }),
  )
  .action(async (id: string, { follow, denied, host, limit, json }: Options, command: Command) => {
    const sandbox = await sandboxOf(clientOf(command), id);
    const filter = { verdict: denied ? ('denied' as const) : undefined, host };
    const newest = (await sandbox.egressLog({ limit: 1 }))[0]?.id ?? 0;
    const print = (entry: EgressLogEntry): void =>
      json ? printJson(entry) : console.log(rowOf(COLUMNS, cellsOf(entry)));
    if (!json) console.log(headerOf(COLUMNS));
    for (const entry of await sandbox.egressLog({ ...filter, limit, before: newest + 1 })) print(entry);
    if (!follow) return;
    for await (const event of sandbox.followEgressLog({ ...filter, after: newest })) {
      if (event.kind !== 'gap') print(event);
      else if (json) printJson(event);
      else console.log(`… ${event.missed} entries came faster than they could be shown`);
    }
    throw new InstaVMError('connection_lost', 'the server has ended the log', { hint: 'Is it being stopped?' });
  });

function cellsOf(entry: EgressLogEntry): string[] {
  const { at, host, port, address, rule, allowed, outcome, bytesSent, bytesReceived, durationMs, repeated } = entry;
  const verdict = allowed && outcome === 'closed' ? 'allowed' : outcome;
  const name = host.includes(':') && port !== null ? `[${host}]` : host;
  return [
    `${at.toISOString().slice(0, 19)}Z`,
    repeated > 1 ? `${verdict} ×${repeated}` : verdict,
    printable(port === null ? `${name} (name)` : `${name}:${port}`),
    printable(address ?? ''),
    printable(rule),
    ...(entry.kind === 'lookup' || outcome === 'denied' || outcome === 'open'
      ? ['', '']
      : [size(bytesSent), size(bytesReceived)]),
    durationMs === null ? '' : String(Math.round(durationMs)),
    printable(entry.reason ?? ''),
  ];
}
