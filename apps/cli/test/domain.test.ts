/** Custom domains on the command line, against a daemon with a real certificate authority. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { AcmeDaemon } from '@instavm/testing/acme-daemon';
import { whyNoPebble } from '@instavm/testing/pebble';
import { InstaVM } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { INSTAVM, PATIENCE } from './command-line.ts';

describe.skipIf(whyNoPebble() !== undefined)('instavm domain', PATIENCE, () => {
  let stand: AcmeDaemon;
  let share = '';
  beforeAll(async () => {
    stand = await AcmeDaemon.start();
    const { apiKey, baseUrl } = stand.daemon;
    const client = new InstaVM({ apiKey, baseUrl });
    share = (await (await client.sandboxes.create({ ttlSeconds: 3_600 })).shares.create({ port: 8000 })).id;
    client.close();
  });
  afterAll(() => stand.stop());

  async function run(...args: string[]) {
    const { apiKey, baseUrl } = stand.daemon;
    const own = {
      INSTAVM_BASE_URL: baseUrl,
      INSTAVM_API_KEY: apiKey,
      HOME: '/nonexistent',
      NODE_DISABLE_COMPILE_CACHE: '1',
    };
    const env = { PATH: process.env.PATH ?? '', ...own };
    const child = spawn(INSTAVM, ['domain', ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const out = { stdout: '', stderr: '' };
    child.stdout.on('data', (chunk) => {
      out.stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      out.stderr += chunk;
    });
    const [code] = await once(child, 'close');
    return { ...out, code: code as number };
  }

  it('tells the records to set, verifies, waits, lists, looks and deletes', async () => {
    const created = await run('create', share, 'cli.example.com', '--dns-provider', 'mine');
    const [, id = '', record = '', value = ''] =
      /^Domain (\d+), cli\.example\.com, is pending\.\nTYPE +NAME +VALUE\nTXT +(\S+) +(\S+)\nCNAME +cli\.example\.com +shr\w+\.preview\.localhost\n$/.exec(
        created.stdout,
      ) ?? [];
    expect(id, created.stdout).not.toBe('');
    expect(created.stderr).toContain(`instavm domain verify ${id} --wait`);

    const failed = await run('verify', id);
    expect(failed).toMatchObject({ code: 1, stdout: '' });
    expect(failed.stderr).toContain(`There is no TXT record ${record} = ${value}: nothing was found`);
    expect((await run('wait', id)).stderr).toContain('There is no TXT record');

    await stand.pebble.addTxt(record, value);
    const url = `https://cli.example.com:${stand.previewPort}`;
    expect(await run('verify', id, '--wait', '--timeout', '10m')).toMatchObject({ code: 0, stdout: `${url}\n` });
    expect((await run('verify', id)).stdout).toBe(`${url}\n`);
    expect((await run('wait', id)).stdout).toBe(`${url}\n`);
    expect(JSON.parse((await run('create', share, 'cli.example.com', '--json')).stdout)).toMatchObject({
      ...{ id: Number(id), status: 'issued', url },
    });
    const listed = (await run('ls')).stdout;
    expect(listed).toMatch(/^DOMAIN +STATUS +SHARE +AGE +URL\n/);
    expect(listed).toMatch(new RegExp(`\n${id} +issued +${share} +\\d+ (s|min) +${url}\n`));
    expect(JSON.parse((await run('ls', '--json')).stdout)).toMatchObject([{ id: Number(id) }]);
    const health = (await run('health', id)).stdout;
    expect(health).toMatch(
      new RegExp(
        `^DOMAIN +${url}\nstatus +issued\ncertificate +yes, until \\S+\nkey +yes\nserver answers +yes\n\nTYPE +NAME +VALUE\nTXT +${record} `,
      ),
    );
    expect(JSON.parse((await run('health', id, '--json')).stdout)).toMatchObject({ proxyActive: true });
    expect((await run('rm', id)).stdout).toBe(`${id} deleted\n`);
    expect(await run('health', id)).toMatchObject({ code: 3, stderr: expect.stringContaining('no custom domain') });
  });

  it('says what is wrong', async () => {
    const { stdout } = await run('create', share, 'slow.example.com', '--json');
    const { id } = JSON.parse(stdout);
    const wrong: [string[], number, RegExp][] = [
      [['create', share, 'localhost'], 2, /localhost needs two labels/],
      [['create', share, 'x.preview.localhost'], 2, /belongs to the preview domain/],
      [['create', share], 2, /missing required argument 'domain'/],
      [['verify', 'x'], 2, /whole number/],
      [['wait', String(id), '--timeout', '1'], 1, /is still pending\n.*verified first/],
      [['rm', '4711'], 3, /no custom domain 4711/],
    ];
    for (const [args, code, words] of wrong) {
      const answer = await run(...args);
      expect([answer.code, answer.stderr], args.join(' ')).toEqual([code, expect.stringMatching(words)]);
    }
  });
});
