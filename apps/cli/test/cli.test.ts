/** The command line in pipes, when things go wrong, and as a shell completes it. In a terminal: `shell.test.ts`. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import type { SandboxId } from '@instavm/core';
import { egressLog, openDatabase } from '@instavm/store';
import { egressEntry } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { candidates } from '../src/completion/candidates.ts';
import { knownTo } from '../src/completion/known.ts';
import { program } from '../src/program.ts';
import { CommandLine, INSTAVM, PATIENCE } from './command-line.ts';

let cli: CommandLine;
beforeAll(async () => {
  cli = await CommandLine.open();
});
afterAll(() => cli.close());

/** As many at a time as keep two processors busy; each is a process, so that a busy machine takes its time. */
async function eachOf<T>(cases: readonly T[], check: (one: T) => Promise<void>): Promise<void> {
  const waiting = [...cases];
  const worker = async (): Promise<void> => {
    for (let one = waiting.shift(); one !== undefined; one = waiting.shift()) await check(one);
  };
  await Promise.all([worker(), worker(), worker()]);
}

describe('instavm, in pipes', PATIENCE, () => {
  it('gives a terminal its input to the end and loses no output', async () => {
    const script = 'while read line; do echo "got $line"; done; seq 20000; exit 6';
    const { stdout, code } = await cli.run(['shell', cli.sandbox.id, '--', 'bash', '-c', script], { input: 'a\nb' });
    expect(code).toBe(6);
    expect(stdout).toContain('got a\r\n');
    expect(stdout.trimEnd().endsWith('19999\r\n20000')).toBe(true);
  });

  it('runs commands with their streams and exit code', async () => {
    const done = await cli.run(['exec', cli.sandbox.id, 'sh', '-c', 'cat; echo oops >&2; exit 9'], { input: 'in\n' });
    expect(done).toEqual({ stdout: 'in\n', stderr: 'oops\n', code: 9 });
    const json = await cli.run(['exec', '--json', cli.sandbox.id, '--', 'echo', '--json']);
    expect(JSON.parse(json.stdout)).toMatchObject({ stdout: '--json\n', exitCode: 0 });
  });

  it('ends with what has failed, whoever still holds its input open', async () => {
    const sandbox = await cli.client.sandboxes.create();
    const args = ['exec', sandbox.id, 'sh', '-c', 'echo runs; cat'];
    const child = spawn(INSTAVM, args, { env: cli.env, stdio: ['pipe', 'pipe', 'ignore'] });
    try {
      await once(child.stdout, 'data');
      await sandbox.delete();
      expect((await once(child, 'exit'))[0]).toBe(125);
    } finally {
      child.kill('SIGKILL');
    }
  });

  it('makes, lists and ends sandboxes, as tables and as JSON', async () => {
    const made = JSON.parse((await cli.run(['new', '--json', '--memory', '256', '--env', 'A=b c'])).stdout);
    expect(made).toMatchObject({ state: 'running', memoryMb: 256 });
    expect((await cli.run(['exec', made.incarnationId, 'printenv', 'A'])).stdout).toBe('b c\n');
    expect((await cli.run(['ls'])).stdout).toMatch(new RegExp(`^SANDBOX .*\n[\\s\\S]*${made.id}  running`));
    await cli.client.sandboxes.attach(made.id).pty.create({ id: 'one', argv: ['sleep', '60'] });
    expect((await cli.run(['shell', 'ls', made.id])).stdout).toMatch(/one +running +80x24 +1 +root .*sleep 60/);
    expect(JSON.parse((await cli.run(['shell', 'ls', made.id, '--json'])).stdout)[0]).toMatchObject({
      id: 'one',
      alive: true,
    });
    expect((await cli.run(['rm', made.id])).stdout).toBe(`${made.id} ended\n`);
    const listed = JSON.parse((await cli.run(['ls', '--json'])).stdout) as { id: string }[];
    expect(listed.map(({ id }) => id)).not.toContain(made.id);
  });

  it('clones, suspends, resumes and keeps moments of sandboxes, by the first characters of their ids', async () => {
    const { id } = await cli.client.sandboxes.create({ ttlSeconds: 600 });
    const short = id.slice(0, 13);
    await cli.run(['exec', short, 'sh', '-c', 'echo kept > /tmp/mark']);
    const clones = (await cli.run(['clone', short, '--count', '2'])).stdout.trim().split('\n');
    expect(new Set([...clones, id]).size).toBe(3);
    expect((await cli.run(['suspend', short, clones[0] ?? ''])).stdout).toBe(
      `${id} suspended\n${clones[0]} suspended\n`,
    );
    expect((await cli.run(['ls'])).stdout).toMatch(new RegExp(`${id}  suspended`));
    expect(JSON.parse((await cli.run(['resume', short, '--json'])).stdout)).toMatchObject([{ id, state: 'running' }]);
    const taken = await cli.run(['snapshot', 'create', short, '--name', 'ready']);
    expect(taken.stderr).toContain(`new --snapshot ${taken.stdout.trim()}`);
    expect((await cli.run(['snapshot', 'ls'])).stdout).toMatch(
      new RegExp(`^SNAPSHOT +NAME[\\s\\S]*${taken.stdout.trim()} +ready +ready`),
    );
    expect(JSON.parse((await cli.run(['snapshot', 'show', 'ready', '--json'])).stdout)).toMatchObject({
      name: 'ready',
    });
    const begun = await cli.run(['new', '--snapshot', 'ready', '--metadata', 'from=ready', '--json']);
    expect(JSON.parse(begun.stdout)).toMatchObject({ state: 'running', metadata: { from: 'ready' } });
    expect((await cli.run(['snapshot', 'rm', 'ready'])).stdout).toBe(`${taken.stdout.trim()} deleted\n`);
    expect((await cli.run(['rm', id, ...clones])).stdout).toBe([id, ...clones].map((one) => `${one} ended\n`).join(''));
  });

  it('finds a sandbox by its name while it lasts, and asks which one when several have it', async () => {
    const make = async (name: string) => (await cli.run(['new', '--name', name])).stdout.trim();
    const web = await make('my web');
    expect(await cli.run(['exec', 'my web', 'echo', 'found'])).toMatchObject({ stdout: 'found\n' });
    await cli.run(['cp', '-', 'my web:/tmp/note'], { input: 'kept' });
    expect((await cli.run(['cp', 'my web:/tmp/note', '-'])).stdout).toBe('kept');
    // A name that could be the beginning of an id.
    const id = await make(web.slice(0, 4));
    expect((await cli.run(['rm', web.slice(0, 4)])).stdout).toBe(`${id} ended\n`);
    const another = await make('my web');
    const asked = await cli.run(['rm', 'my web']);
    expect(asked).toMatchObject({ code: 2, stdout: '' });
    for (const one of [web, another]) expect(asked.stderr).toContain(one);
    await cli.run(['rm', another]);
    expect((await cli.run(['rm', 'my web'])).stdout).toBe(`${web} ended\n`);
    expect((await cli.run(['rm', 'my web'])).code).toBe(3);
  });

  it('shows, changes and explains what a sandbox may reach', async () => {
    const { id } = await cli.client.sandboxes.create();
    const policy = async () => JSON.parse((await cli.run(['egress', 'get', id, '--json'])).stdout);
    await cli.run([
      'egress',
      'set',
      id,
      '--deny-all',
      '--allow-https',
      '--allow-domain',
      'a.test',
      '--allow-domain',
      '*.b.test',
    ]);
    expect(await policy()).toMatchObject({
      allowHttps: true,
      allowHttp: false,
      allowedDomains: ['a.test', '*.b.test'],
    });
    const set = await cli.run([
      'egress',
      'set',
      id,
      '--no-allow-https',
      '--allow-cidr',
      '192.0.2.0/24',
      '--remove-domain',
      'a.test',
    ]);
    expect(set.stdout).toMatch(
      /port 443 +denied[\s\S]*registries +denied[\s\S]*\*\.b\.test +allowed[\s\S]*192\.0\.2\.0\/24 +allowed/,
    );
    expect(await policy()).toEqual({
      ...{ allowHttp: false, allowHttps: false, allowPackageManagers: false },
      ...{ allowedDomains: ['*.b.test'], allowedCidrs: ['192.0.2.0/24'] },
    });
    const refused = await cli.run(['egress', 'set', id, '--allow-domain', 'a b', '--allow-http']);
    expect([refused.code, refused.stdout]).toEqual([2, '']);
    expect(refused.stderr).toMatch(/"a b"[\s\S]*Nothing was changed/);
    expect((await policy()).allowHttp).toBe(false);
    const allowed = await cli.run(['egress', 'test', id, '192.0.2.7:22']);
    expect(allowed).toMatchObject({ code: 0, stderr: '' });
    expect(allowed.stdout).toMatch(
      /^allowed {2}192\.0\.2\.7:22 {2}allowed_cidrs:192\.0\.2\.0\/24\n[\s\S]*192\.0\.2\.7 +allowed/,
    );
    await cli.run(['egress', 'set', id, '--deny-all']);
    const denied = await cli.run(['egress', 'test', id, 'c.test:443']);
    expect(denied).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('c.test'),
      stderr: expect.stringContaining(`egress set ${id}`),
    });
    expect(JSON.parse((await cli.run(['egress', 'test', id, 'c.test:443', '--json'])).stdout).rule).toBe(
      'default_deny',
    );
  });

  it('shows what a sandbox tried to reach, and follows it', async () => {
    const { id } = await cli.client.sandboxes.create();
    const database = await openDatabase(join(cli.daemon.dataDirectory, 'instavm.db'));
    const entry = egressEntry({ host: 'a.test', bytesSent: 120, bytesReceived: 3_500_000, durationMs: 42 });
    const denied = {
      ...entry,
      allowed: false,
      outcome: 'denied',
      rule: 'default_deny',
      host: 'b\x1b[2J.test',
      repeated: 9,
    } as const;
    await egressLog(database).append(id as SandboxId, [entry, denied]);
    await database.destroy();
    const lines = (await cli.run(['egress', 'log', id])).stdout.trim().split('\n');
    expect(lines[0]).toMatch(/^TIME +VERDICT +DESTINATION +ADDRESS +RULE +↑ +↓ +MS +REASON$/);
    expect(lines[1]).toMatch(
      /^2026-01-01T00:00:00Z +allowed +a\.test:443 +192\.0\.2\.1 +allow_https +120 B +3\.5 MB +42$/,
    );
    expect(lines[2]).toMatch(/denied ×9 +b\ufffd\[2J\.test:443 .*default_deny/);
    const json = (await cli.run(['egress', 'log', id, '--json', '--denied'])).stdout.trim().split('\n');
    expect(json.map((line) => JSON.parse(line).id)).toEqual([2]);
    expect((await cli.run(['egress', 'log', id, '--host', 'nowhere.test', '--json'])).stdout).toBe('');
    const following = spawn(INSTAVM, ['egress', 'log', id, '--follow', '--limit', '1', '--json'], { env: cli.env });
    const [first] = await once(following.stdout, 'data');
    expect(JSON.parse(String(first))).toMatchObject({ id: 2 });
    following.kill('SIGINT');
    expect((await once(following, 'close'))[1] ?? 'SIGINT').toBe('SIGINT');
  });

  it('shares ports, lists them, gives links and revokes them', async () => {
    const { id } = await cli.client.sandboxes.create();
    const url = /^https:\/\/(shr[a-z2-7]{20})\.\S+\n$/;
    const shared = await cli.run(['share', id, '8000']);
    expect(shared.stdout).toMatch(url);
    const share = url.exec(shared.stdout)?.[1] ?? '';
    expect(shared.stderr).toContain(`share link ${share}`);
    expect((await cli.run(['share', id, '8000', '--public'])).stdout).toBe(shared.stdout);
    expect(JSON.parse((await cli.run(['share', id, '8000', '--json'])).stdout)).toMatchObject({
      id: share,
      isPublic: true,
    });
    const header = /^SHARE +SANDBOX +PORT +OPEN TO +AGE +URL\n/;
    const listed = (await cli.run(['share', 'ls'])).stdout;
    expect(listed).toMatch(header);
    expect(listed).toMatch(new RegExp(`\n${share}  ${id}  8000  public +\\d+ (s|min)  https://${share}\\.`));
    expect((await cli.run(['share', id, '8000', '--private', '--json'])).stdout).toContain('"isPublic":false');
    expect((await cli.run(['share', id, '8000', '--rewrite-host', '--json'])).stdout).toContain('"rewriteHost":true');
    expect((await cli.run(['share', id, '8000', '--json'])).stdout).toContain('"rewriteHost":true');
    expect((await cli.run(['share', id, '8000', '--no-rewrite-host', '--json'])).stdout).toContain(
      '"rewriteHost":false',
    );
    expect(JSON.parse((await cli.run(['share', 'ls', id, '--json'])).stdout)).toMatchObject([
      { id: share, port: 8000 },
    ]);
    const link = await cli.run(['share', 'link', share, '--ttl', '2h']);
    expect(link.stdout).toMatch(new RegExp(`^https://${share}\\.\\S+\\?\\S+\n$`));
    expect((await cli.run(['share', 'link', share, '--revoke', link.stdout.trim()])).stdout).toMatch(
      /^lnk[a-z2-7]{16} revoked\n$/,
    );
    expect(link.stderr).toMatch(new RegExp(`share link ${share} --revoke lnk[a-z2-7]{16}\n`));
    const { expiresAt } = JSON.parse((await cli.run(['share', 'link', share, '--ttl', '90', '--json'])).stdout);
    expect(Date.parse(expiresAt) - Date.now()).toBeLessThanOrEqual(90_000);
    expect((await cli.run(['share', 'rm', share])).stdout).toBe(`${share} revoked\n`);
    expect((await cli.run(['share', 'ls', id])).stdout).toMatch(new RegExp(`${header.source}$`));
    expect(await cli.run(['share', 'link', share])).toMatchObject({ code: 3, stderr: expect.stringContaining(share) });
  });

  it('says what is wrong and what to type next, by exit codes that tell kinds apart', async () => {
    const nowhere = '00000000-0000-4000-8000-000000000000';
    const [usage, notFound, refused, network, notRun, notAProgram] = [2, 3, 4, 5, 125, 127];
    const cases: [string[], object, number, RegExp][] = [
      [['shell', nowhere], {}, notRun, /there is no sandbox[\s\S]*instavm ls/],
      [['shell', cli.sandbox.id, '--attach', 'nowhere'], {}, notRun, /nowhere[\s\S]*instavm shell ls/],
      [['shell', cli.sandbox.id, '--escape', 'xx'], {}, usage, /one printable character/],
      [['shell', 'rm', cli.sandbox.id, 'nowhere'], {}, notFound, /instavm shell ls/],
      [['exec', cli.sandbox.id, 'no-such-program'], {}, notAProgram, /no-such-program/],
      [['exec', '--cwd', '/nowhere', cli.sandbox.id, 'true'], {}, notRun, /\/nowhere/],
      [['exec', cli.sandbox.id, '--cwd', '/tmp', 'true'], {}, usage, /--cwd goes before the sandbox/],
      [['rm', 'vm_aaaaaaaaaaaaaaaaaaaa'], {}, notFound, /there is no VM[\s\S]*instavm ls/],
      [['rm', 'ffffffff'], {}, notFound, /there is no sandbox ffffffff/],
      [['rm', 'my sandbox'], {}, notFound, /no sandbox called my sandbox[\s\S]*instavm ls/],
      [['snapshot', 'show', 'nowhere'], {}, notFound, /instavm snapshot ls/],
      [['new', '--snapshot', 'nowhere'], {}, notFound, /there is no snapshot nowhere/],
      [['egress', 'set', cli.sandbox.id], {}, usage, /--allow-domain[\s\S]*--help/],
      [
        ['egress', 'set', cli.sandbox.id, '--remove-domain', 'x.test'],
        {},
        usage,
        /x\.test is not on the list[\s\S]*egress get/,
      ],
      [['egress', 'test', cli.sandbox.id, 'nowhere:x'], {}, usage, /name:port[\s\S]*npx instavm egress test --help/],
      [['egress', 'log', nowhere], {}, notFound, /there is no sandbox/],
      [['share', cli.sandbox.id, '0'], {}, usage, /from 1 to 65535/],
      [['share', cli.sandbox.id], {}, usage, /missing required argument 'port'[\s\S]*npx instavm share --help/],
      [['new', '--vcpus', '3'], {}, usage, /It takes 1, 2, 4, 6, 8/],
      [['new', '--ttl', '5'], {}, usage, /from 20s up to 1d/],
      [['share', cli.sandbox.id, '80', '--public', '--private'], {}, usage, /either/],
      [['share', nowhere, '80'], {}, notFound, /there is no sandbox/],
      [['share', 'rm', 'nowhere'], {}, notFound, /there is no share nowhere[\s\S]*share ls/],
      [['share', 'link', 'nowhere', '--ttl', '8d'], {}, usage, /up to 7d/],
      [['share', 'link', 'nowhere', '--revoke', 'x'], {}, usage, /x is the id of no link/],
      [['lss'], {}, usage, /Did you mean ls\?/],
      [['ls', '--jsn'], {}, usage, /Did you mean --json\?/],
      [['ls'], { INSTAVM_API_KEY: 'wrong' }, refused, /API key[\s\S]*instavm login/],
      [['ls'], { INSTAVM_API_KEY: '' }, refused, /no API key[\s\S]*instavm login/],
      [['ls'], { INSTAVM_BASE_URL: 'http://127.0.0.1:9' }, network, /instavm serve/],
    ];
    await eachOf(cases, async ([args, changes, expected, said]) => {
      const { stderr, stdout, code } = await cli.run(args, { changes });
      expect([code, stdout], args.join(' ')).toEqual([expected, '']);
      expect(stderr).toMatch(said);
    });
    const told = await cli.run(['snapshot', 'show', 'nowhere', '--json']);
    expect(JSON.parse(told.stderr).error).toMatchObject({ code: 'snapshot_not_found', retryable: 'no' });
  });
});

describe('instavm logs', () => {
  it('shows what ran in the background, goes on with it, and ends as it does', async () => {
    const { id } = await cli.client.sandboxes.create();
    const script = 'echo begun; read line; echo "$line"; exit 3';
    const begun = await cli.run(['exec', '--detach', id, 'sh', '-c', script]);
    const terminal = begun.stdout.trim();
    expect(begun.stderr).toContain(`logs ${id} ${terminal} --follow`);
    await expect.poll(async () => (await cli.run(['logs', id])).stdout).toBe('begun\n');
    const following = cli.run(['logs', id, terminal, '--follow', '--json']);
    const attached = await cli.client.sandboxes.attach(id).pty.attach(terminal);
    await attached.write('typed\r');
    const lines = (await following).stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines.at(-1)).toEqual({ exitCode: 3, signal: null });
    expect(lines.map(({ text = '' }) => text).join('')).toMatch(/^begun\r\ntyped\r\ntyped\r\n$/);
    expect((await following).code).toBe(3);
    expect((await cli.run(['logs', id])).stdout).toBe('begun\ntyped\ntyped\n');
  });
});

describe('instavm completion', () => {
  const completed = async (words: string[]) => {
    const known = (kind: string, before: readonly string[]) => knownTo(cli.client, kind, before);
    return (await candidates(program, words, known)).values.map(([value]) => value);
  };

  it('knows commands, options, their values, and what the server has', async () => {
    const { id } = await cli.client.sandboxes.create();
    await cli.client.sandboxes.attach(id).pty.create({ id: 'build', argv: ['sleep', '60'] });
    const cases: [string[], string[]][] = [
      [['sh'], ['shell', 'share']],
      [
        ['share', 'l'],
        ['ls', 'link'],
      ],
      [['keys', 'create', '--sc'], ['--scope']],
      [
        ['keys', 'create', '--scope', 'r'],
        ['read', 'run'],
      ],
      [['keys', 'create', '--scope=f'], ['--scope=full']],
      [['exec', id.slice(0, 9)], [id]],
      [['--base-url', cli.daemon.baseUrl, 'exec', '--cwd', '/tmp', id.slice(0, 9)], [id]],
      [['exec', id, '--', 'l'], []],
      [['shell', id, '--attach', 'b'], ['build']],
      [['shell', 'rm', id, 'b'], ['build']],
      [['cp', './', id.slice(0, 9)], [`${id}:/`]],
    ];
    for (const [words, values] of cases) expect(await completed(words), words.join(' ')).toEqual(values);
    expect((await cli.run(['complete', '--', 'cp', './no'])).stdout).toBe(':0\n');
    expect((await cli.run(['complete', '--', 'ls', 'x'])).stdout).toBe(':4\n');
    expect((await cli.run(['complete', '--', 'cp', id.slice(0, 9)])).stdout).toMatch(
      new RegExp(`^${id}:/\trunning, .*\n:2\n$`),
    );
  });

  it('completes in bash by the script that it prints', async () => {
    const script = (await cli.run(['completion', 'bash'])).stdout;
    const words = 'instavm keys create --scope r';
    // Twice, as an initialization file is read again; and without bash-completion, which is not everywhere.
    const line = `PATH="$2:$PATH"; compopt() { :; }; eval "$1"; eval "$1"; complete -p instavm; COMP_LINE="${words}"; COMP_POINT=\${#COMP_LINE}; COMP_WORDS=(${words}); COMP_CWORD=4; COMP_TYPE=9
      "$(complete -p instavm | sed 's/.*-F \\([^ ]*\\) .*/\\1/')"; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const shell = spawn('bash', ['-c', line, 'bash', script, dirname(INSTAVM)], { env: cli.env });
    let said = '';
    shell.stdout.on('data', (chunk) => {
      said += chunk;
    });
    let complaints = '';
    shell.stderr.on('data', (chunk) => {
      complaints += chunk;
    });
    await once(shell, 'close');
    expect(said).toMatch(/read/);
    expect(said).toMatch(/run/);
    expect(complaints).toBe('');
  });
});
