/** The package as npm would publish it, imported by a project that knows nothing of this repository. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { ERROR_CATALOG } from '@instavm/wire';
import { InstaVM, InstaVMError } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const run = promisify(execFile);
const PACKAGE = resolve(import.meta.dirname, '..');
const MODULES = resolve(import.meta.dirname, '../../../node_modules');

describe('the packed package', () => {
  let project: string;
  beforeAll(async () => {
    project = await mkdtemp(join(tmpdir(), 'instavm-pack-'));
    const own = join(project, 'node_modules/instavm');
    await mkdir(own, { recursive: true });
    const compile = [
      join(MODULES, 'typescript/bin/tsc'),
      '-p',
      join(PACKAGE, 'tsconfig.build.json'),
      '--outDir',
      join(own, 'dist'),
    ];
    await run(process.execPath, compile);
    await writeFile(join(own, 'package.json'), await readFile(join(PACKAGE, 'package.json')));
    for (const dependency of ['ws', 'tar-stream', 'streamx', '@openai'])
      await symlink(join(MODULES, dependency), join(project, 'node_modules', dependency));
    await writeFile(join(project, 'package.json'), '{"type":"module"}');
  });
  afterAll(() => rm(project, { recursive: true, force: true }));

  it('is plain JavaScript with types, for both of its entries', async () => {
    await writeFile(
      join(project, 'use.js'),
      "import { InstaVM } from 'instavm'; import { InstaVMSandboxClient } from 'instavm/openai-agents';\n" +
        "console.log(typeof new InstaVM({ apiKey: 'k' }).sandboxes.create, new InstaVMSandboxClient({ apiKey: 'k' }).backendId);",
    );
    const { stdout } = await run(process.execPath, ['use.js'], { cwd: project });
    expect(stdout).toBe('function instavm\n');
    expect(await readFile(join(project, 'node_modules/instavm/dist/index.d.ts'), 'utf8')).toContain('InstaVM');
  });
});

describe('the client', () => {
  it('says what to do without a key', () => {
    const before = process.env.INSTAVM_API_KEY;
    delete process.env.INSTAVM_API_KEY;
    expect(() => new InstaVM()).toThrow(/INSTAVM_API_KEY/);
    if (before !== undefined) process.env.INSTAVM_API_KEY = before;
  });

  it('names a server that does not answer, and how to start one', async () => {
    const client = new InstaVM({ apiKey: 'k', baseUrl: 'http://127.0.0.1:1' });
    const error = await client.sandboxes.list().catch((failure: unknown) => failure);
    expect(error).toBeInstanceOf(InstaVMError);
    expect(error).toMatchObject({ code: 'connection_failed', hint: expect.stringContaining('npm start') });
  });

  it('uses no code of its own that the server uses for something else', () => {
    for (const own of ['connection_failed', 'connection_lost', 'unexpected_answer', 'aborted'])
      expect(own in ERROR_CATALOG).toBe(false);
  });
});
