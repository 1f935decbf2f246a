import { Command } from 'commander';
import { keepAuthority } from '../../authority.ts';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printJson } from '../../output.ts';
import { addToBrowsers, addToSystem, shellLine, systemStore } from '../../trust-stores.ts';

type Options = { system: boolean; json?: boolean };

export const installCommand = new Command('install')
  .description("make this machine's programs and browsers trust previews; what needs root is printed when you are not")
  .option('--no-system', 'only the browsers of this user')
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: '{ domain, path, sha256, browsers, system, command }', examples: ['ca install'] }))
  .action(async ({ system, json }: Options, command: Command) => {
    const { domain, path, sha256 } = await keepAuthority(clientOf(command));
    const browsers = await addToBrowsers(path, domain);
    const store = system ? await systemStore(path, domain) : undefined;
    const isRoot = process.getuid?.() === 0;
    if (store && isRoot) await addToSystem(store);
    const left = store && !isRoot ? shellLine(store.commands, 'sudo') : undefined;
    // Something that was asked for is not done.
    if (system && (left !== undefined || store === undefined)) process.exitCode = 1;
    if (json) {
      const installed = store && isRoot ? store.name : null;
      return printJson({ domain, path, sha256, browsers: browsers ?? null, system: installed, command: left ?? null });
    }
    console.log(`The authority can speak for names under ${domain} and for nothing else (SHA-256 ${sha256}).`);
    for (const database of browsers ?? [])
      console.log(`Trusted in ${database}; browsers that run see it when they start again.`);
    if (browsers === undefined)
      console.error('Not in browsers: there is no certutil here (Debian: libnss3-tools; Fedora: nss-tools).');
    if (store && isRoot) console.log(`Trusted by the system (${store.name}).`);
    if (left !== undefined) console.error(`Not by the system, which takes root:\n  ${left}`);
    if (system && store === undefined)
      console.error(`Not by the system, whose store is none that we know: add ${path} to it.`);
  });
