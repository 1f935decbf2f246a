import { Command } from 'commander';
import { keepAuthority } from '../../authority.ts';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printJson } from '../../output.ts';
import { shellLine } from '../../trust-stores.ts';

type Options = { printEnv?: boolean; json?: boolean };

export const pathCommand = new Command('path')
  .description('the authority as a file (PEM), to give to clients: curl --cacert, NODE_EXTRA_CA_CERTS')
  .option('--print-env', 'as lines for the shell: eval "$(instavm ca path --print-env)"')
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: '{ domain, path, bundlePath, sha256 }', examples: ['ca path --print-env'] }))
  .action(async ({ printEnv, json }: Options, command: Command) => {
    const kept = await keepAuthority(clientOf(command));
    if (json) return printJson(kept);
    if (!printEnv) return console.log(kept.path);
    // Node adds the file to what it trusts; OpenSSL, and with it Python, takes the one file instead of the system's.
    console.log(shellLine([[`NODE_EXTRA_CA_CERTS=${kept.path}`]], 'export'));
    console.log(shellLine([[`SSL_CERT_FILE=${kept.bundlePath}`]], 'export'));
  });
