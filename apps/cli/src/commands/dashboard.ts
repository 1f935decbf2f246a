import { Command } from 'commander';
import { InstaVMError } from 'instavm';
import { ask } from '../account.ts';
import { openInBrowser } from '../browser.ts';
import { type Connection, connectionOf } from '../connect.ts';
import { help } from '../help.ts';
import { printJson } from '../output.ts';

export const dashboardCommand = new Command('dashboard')
  .description('open the dashboard, signed in when the key is that of the administrator of this machine')
  .option('--no-browser', 'only print the address')
  .option('--json', 'the address as JSON; no browser')
  .addHelpText('after', help({ json: '{ url }', examples: ['dashboard', 'dashboard --no-browser'] }))
  .action(async ({ browser, json }: { browser: boolean; json?: boolean }, command: Command) => {
    const url = await dashboardUrl(connectionOf(command));
    if (json) return printJson({ url });
    console.log(url);
    if (browser) openInBrowser(url);
  });

/** A link that signs in once and soon; where that is not for us to have, the page that asks who it is. */
async function dashboardUrl(connection: Connection): Promise<string> {
  try {
    return (await ask<{ url: string }>(connection, 'POST', '/api/auth/links')).url;
  } catch (error) {
    if (!(error instanceof InstaVMError) || error.code !== 'permission_denied') throw error;
    console.error(`${error.message}; sign in there with your password`);
    return `${connection.baseUrl}/dashboard`;
  }
}
