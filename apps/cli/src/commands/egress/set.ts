import { Command } from 'commander';
import { type EgressPolicy, InstaVMError } from 'instavm';
import { repeated } from '../../arguments.ts';
import { clientOf, sandboxOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printPolicy } from './get.ts';

type Options = {
  allowHttp?: boolean;
  allowHttps?: boolean;
  allowPackageManagers?: boolean;
  allowDomain?: string[];
  removeDomain?: string[];
  allowCidr?: string[];
  removeCidr?: string[];
  denyAll?: boolean;
  json?: boolean;
};

const NOTHING: EgressPolicy = {
  allowHttp: false,
  allowHttps: false,
  allowPackageManagers: false,
  allowedDomains: [],
  allowedCidrs: [],
};

export const setCommand = new Command('set')
  .summary('change the policy')
  .description(
    'Change the policy, at once: what is not named stays, and connections that are no longer allowed are cut.',
  )
  .argument('<sandbox>', 'id, VM or name')
  .option('--allow-http', 'any host on port 80')
  .option('--no-allow-http')
  .option('--allow-https', 'any host on port 443')
  .option('--no-allow-https')
  .option('--allow-package-managers', 'PyPI, npm and the other registries that the server lists')
  .option('--no-allow-package-managers')
  .option('--allow-domain <name>', 'this host; *.example.com for every host below it; repeatable', repeated)
  .option('--remove-domain <name>', 'take it off the list; repeatable', repeated)
  .option('--allow-cidr <range>', 'these addresses, like 192.0.2.0/24; repeatable', repeated)
  .option('--remove-cidr <range>', 'take it off the list; repeatable', repeated)
  .option('--deny-all', 'begin with nothing allowed: only what this command allows is')
  .option('--json', 'the new policy as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ allowHttp, allowHttps, allowPackageManagers, allowedDomains, allowedCidrs }',
      examples: [
        [
          'egress set 3f2a --deny-all --allow-package-managers --allow-domain api.example.com',
          'registries and one host',
        ],
      ],
    }),
  )
  .action(async (id: string, options: Options, command: Command) => {
    const { json, denyAll, ...named } = options;
    if (!denyAll && Object.keys(named).length === 0)
      command.error('error: name what to change, like --allow-domain pypi.org');
    const sandbox = await sandboxOf(clientOf(command), id);
    const before = denyAll ? NOTHING : await sandbox.getEgressPolicy();
    await sandbox.setEgressPolicy({
      allowHttp: named.allowHttp ?? before.allowHttp,
      allowHttps: named.allowHttps ?? before.allowHttps,
      allowPackageManagers: named.allowPackageManagers ?? before.allowPackageManagers,
      allowedDomains: changed(before.allowedDomains, named.allowDomain, named.removeDomain),
      allowedCidrs: changed(before.allowedCidrs, named.allowCidr, named.removeCidr),
    });
    printPolicy(await sandbox.getEgressPolicy(), json);
  });

/** @throws InstaVMError `invalid_argument` when what is to be removed is not there: it may be allowed under another spelling */
function changed(before: readonly string[], added: string[] = [], removed: string[] = []): string[] {
  const missing = removed.find((one) => !before.includes(one));
  if (missing !== undefined)
    throw new InstaVMError('invalid_argument', `${missing} is not on the list`, {
      hint: 'See the list with: npx instavm egress get',
    });
  return [...new Set([...before, ...added])].filter((one) => !removed.includes(one));
}
