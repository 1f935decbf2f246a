import { Command } from 'commander';
import { InstaVMError } from 'instavm';
import { whoIs } from '../account.ts';
import { openInBrowser } from '../browser.ts';
import { type Connection, configured } from '../connect.ts';
import { help } from '../help.ts';
import { loginByBrowser } from '../loopback-login.ts';
import { printJson } from '../output.ts';
import { writeProfile } from '../profile.ts';

const PREFIX_LENGTH = 17;

export const loginCommand = new Command('login')
  .description('get an API key of your account through the browser, and keep it in ~/.instavm/config.json')
  .option('--no-browser', 'only print the address to open')
  .option('--force', 'also when there is a key that works')
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ email, keyPrefix, path }; keyPrefix and path are null when there was a login already',
      examples: ['login', 'login --no-browser'],
    }),
  )
  .action(async ({ browser, force, json }: { browser: boolean; force?: boolean; json?: boolean }, command: Command) => {
    const connection = configured(command);
    const present = force ? undefined : await presentUser(connection);
    if (present !== undefined) {
      if (json) return printJson({ email: present, keyPrefix: null, path: null });
      console.log(`Already logged in as ${present}. To log in again: npx instavm login --force`);
      return;
    }
    const { apiKey, email } = await loginByBrowser(connection.baseUrl, (url) => {
      console.error(`Open this address in a browser on this machine, and answer there:\n\n  ${url}\n`);
      if (browser) openInBrowser(url);
    });
    const path = writeProfile({ apiKey, baseUrl: connection.baseUrl });
    const keyPrefix = apiKey.slice(0, PREFIX_LENGTH);
    if (json) return printJson({ email, keyPrefix, path });
    console.log(`Logged in as ${email} with the key ${keyPrefix}…, kept in ${path}`);
  });

/** @returns undefined without a key, or with one that the server does not take */
async function presentUser(connection: Connection): Promise<string | undefined> {
  if (connection.apiKey === undefined) return undefined;
  try {
    return (await whoIs(connection)).email;
  } catch (error) {
    if (error instanceof InstaVMError && error.code === 'unauthenticated') return undefined;
    throw error;
  }
}
