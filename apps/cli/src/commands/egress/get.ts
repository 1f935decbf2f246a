import { Command } from 'commander';
import type { EgressPolicy } from 'instavm';
import { clientOf, sandboxOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printable, printJson, table } from '../../output.ts';

export const getCommand = new Command('get')
  .description('the policy in force')
  .argument('<sandbox>', 'id, VM or name')
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ allowHttp, allowHttps, allowPackageManagers, allowedDomains, allowedCidrs }',
      examples: ['egress get 3f2a'],
    }),
  )
  .action(async (id: string, { json }: { json?: boolean }, command: Command) => {
    printPolicy(await (await sandboxOf(clientOf(command), id)).getEgressPolicy(), json);
  });

export function printPolicy(policy: EgressPolicy, json: boolean | undefined): void {
  if (json) {
    printJson(policy);
    return;
  }
  const verdict = (allowed: boolean): string => (allowed ? 'allowed' : 'denied');
  const { allowedDomains, allowedCidrs } = policy;
  const rows = [
    ['any host, port 80', verdict(policy.allowHttp), 'allow-http'],
    ['any host, port 443', verdict(policy.allowHttps), 'allow-https'],
    ['package registries', verdict(policy.allowPackageManagers), 'allow-package-managers'],
    ...allowedDomains.map((name) => [printable(name), 'allowed', 'allow-domain']),
    ...allowedCidrs.map((range) => [printable(range), 'allowed', 'allow-cidr']),
    ['anything else', 'denied', ''],
  ];
  console.log(table(['DESTINATION', 'VERDICT', 'OPTION'], rows));
}
