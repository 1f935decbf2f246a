import { Command } from 'commander';
import { clientOf, sandboxOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printable, printJson, table } from '../../output.ts';

export const testCommand = new Command('test')
  .summary('explain what the policy says about a destination')
  .description(
    'Explain what the policy says about a destination, without connecting. The exit code is 1 when it is denied.',
  )
  .argument('<sandbox>', 'id, VM or name')
  .argument('<destination>', 'name or name:port, or [address]:port for IPv6; port 443 when left out')
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ allowed, rule, reason, addresses: { address, allowed, rule }[] }',
      examples: ['egress test 3f2a pypi.org', 'egress test 3f2a example.com:8080'],
    }),
  )
  .action(async (id: string, wanted: string, { json }: { json?: boolean }, command: Command) => {
    const destination = /:\d+$/.test(wanted) ? wanted : `${wanted}:443`;
    const sandbox = await sandboxOf(clientOf(command), id);
    const result = await sandbox.testEgress(destination);
    process.exitCode = result.allowed ? 0 : 1;
    if (json) return printJson(result);
    const { allowed, rule, reason, addresses } = result;
    console.log(`${allowed ? 'allowed' : 'denied'}  ${destination}  ${printable(rule)}`);
    if (reason !== null) console.log(printable(reason));
    const rows = addresses.map((one) => [one.address, one.allowed ? 'allowed' : 'denied', printable(one.rule)]);
    if (rows.length > 0) console.log(table(['ADDRESS', 'VERDICT', 'RULE'], rows));
    if (!allowed) console.error(`Change the policy with: npx instavm egress set ${sandbox.id} --help`);
  });
