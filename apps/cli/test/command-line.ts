/** The command line as a process, with a daemon, a client beside it and a sandbox that is there. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { InstaVM, type Sandbox } from 'instavm';

/** For tests: every command is a process, and some have thirty. */
export const PATIENCE = { timeout: 600_000 };

export const INSTAVM = resolve(fileURLToPath(import.meta.url), '../../bin/instavm');

export class CommandLine {
  readonly daemon: TestDaemon;
  readonly client: InstaVM;
  readonly sandbox: Sandbox;
  readonly env: Record<string, string>;
  readonly #compileCache: string;

  static async open(): Promise<CommandLine> {
    const daemon = await startTestDaemon({ vmm: 'fake' });
    const client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
    const compileCache = await mkdtemp(join(tmpdir(), 'instavm-cli-'));
    return new CommandLine(daemon, client, await client.sandboxes.create({ ttlSeconds: 3_600 }), compileCache);
  }

  private constructor(daemon: TestDaemon, client: InstaVM, sandbox: Sandbox, compileCache: string) {
    this.daemon = daemon;
    this.client = client;
    this.sandbox = sandbox;
    this.#compileCache = compileCache;
    this.env = {
      ...{ PATH: process.env.PATH ?? '', HOME: '/nonexistent', TERM: 'xterm-256color' },
      // Each start of the program takes a third of the time with it.
      NODE_COMPILE_CACHE: compileCache,
      ...{ INSTAVM_BASE_URL: daemon.baseUrl, INSTAVM_API_KEY: daemon.apiKey },
    };
  }

  async close(): Promise<void> {
    this.client.close();
    await this.daemon.stop();
    await rm(this.#compileCache, { recursive: true });
  }

  /** Runs it in pipes. */
  run = async (args: string[], { input = '', changes = {} }: { input?: string; changes?: object } = {}) => {
    const child = spawn(INSTAVM, args, { env: { ...this.env, ...changes }, stdio: ['pipe', 'pipe', 'pipe'] });
    const out = { stdout: '', stderr: '' };
    child.stdout.on('data', (chunk) => {
      out.stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      out.stderr += chunk;
    });
    child.stdin.on('error', () => {});
    child.stdin.end(input);
    const [code] = await once(child, 'close');
    return { ...out, code: code as number };
  };
}
