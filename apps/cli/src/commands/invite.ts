import { Command } from 'commander';
import { ask } from '../account.ts';
import { duration } from '../arguments.ts';
import { connectionOf } from '../connect.ts';
import { help } from '../help.ts';
import { printJson } from '../output.ts';

const MOST_SECONDS = 30 * 86_400;

export const inviteCommand = new Command('invite')
  .description('print a link with which somebody makes an account, once (for the administrator)')
  .option('--ttl <time>', 'how long it is valid, such as 2h or 7d (default: 7d)', duration(MOST_SECONDS))
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: '{ url, expiresAt }', examples: ['invite --ttl 2d'] }))
  .action(async ({ ttl, json }: { ttl?: number; json?: boolean }, command: Command) => {
    const wanted = ttl === undefined ? {} : { ttl_seconds: ttl };
    const invitation = await ask<{ url: string; expires_at: string }>(
      connectionOf(command),
      'POST',
      '/api/auth/invitations',
      wanted,
    );
    if (json) printJson({ url: invitation.url, expiresAt: invitation.expires_at });
    else console.log(invitation.url);
  });
