/** A daemon, a sandbox with programs in it that users run, and a visitor that trusts the local certificate authority and finds names under `localhost`. */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { Agent, type RequestOptions, request } from 'node:https';
import { join, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { InstaVM, type Sandbox } from 'instavm';

const PROGRAMS = resolve(import.meta.dirname, '../programs');
const PACKED = resolve(import.meta.dirname, '../../../.cache/guest-programs.erofs');
/** In the guest. */
export const MOUNTED = '/opt/programs';

export type Answer = { readonly status: number; readonly headers: IncomingHttpHeaders; readonly body: Buffer };
type Asked = RequestOptions & { readonly body?: Uint8Array | Readable };

export class PreviewStage {
  readonly daemon: TestDaemon;
  readonly client: InstaVM;
  readonly sandbox: Sandbox;
  readonly caPath: string;
  readonly agent: Agent;

  static async open(): Promise<PreviewStage> {
    const packed = await readFile(PACKED).catch((cause: unknown) => {
      throw new Error('the programs for guests are missing; run: npm run setup -- --tests', { cause });
    });
    const daemon = await startTestDaemon({ vmm: 'qemu' });
    try {
      const client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
      const sandbox = await client.sandboxes.create({ ttlSeconds: 1800 });
      await sandbox.files.write(`${MOUNTED}.erofs`, packed);
      const mount = `mkdir -p ${MOUNTED} /root/files && mount -t erofs -o loop,ro ${MOUNTED}.erofs ${MOUNTED} && ln -s ${MOUNTED}/node_modules /root/`;
      const { exitCode, stderrText } = await sandbox.run(mount);
      if (exitCode !== 0) throw new Error(stderrText);
      const caPath = join(daemon.dataDirectory, 'preview', 'preview.localhost.ca.pem');
      return new PreviewStage(daemon, client, sandbox, caPath, await readFile(caPath));
    } catch (error) {
      await daemon.stop();
      throw error;
    }
  }

  private constructor(daemon: TestDaemon, client: InstaVM, sandbox: Sandbox, caPath: string, ca: Buffer) {
    this.daemon = daemon;
    this.client = client;
    this.sandbox = sandbox;
    this.caPath = caPath;
    const lookup = (_: string, options: { all?: boolean }, answer: (...args: unknown[]) => void): void =>
      options.all ? answer(null, [{ address: '127.0.0.1', family: 4 }]) : answer(null, '127.0.0.1', 4);
    this.agent = new Agent({ ca, keepAlive: true, lookup: lookup as never });
  }

  async close(): Promise<void> {
    this.agent.destroy();
    this.client.close();
    await this.daemon.stop();
  }

  /** Copies files of `tests/e2e/programs` to the home directory of the guest. */
  async bring(...names: readonly string[]): Promise<void> {
    for (const name of names) {
      await this.sandbox.files.write(`/root/${name}`, await readFile(join(PROGRAMS, name)), { parents: true });
    }
  }

  /** Starts a program that goes on; its output is in `/root/<port>.log`. */
  async start(command: string, port: number): Promise<void> {
    const { exitCode, stderrText } = await this.sandbox.run(
      `setsid sh -c 'cd /root; ${command}' >/root/${port}.log 2>&1 &`,
    );
    if (exitCode !== 0) throw new Error(stderrText);
  }

  /** Until something answers HTTP on the port, in the guest itself. @throws with what the program wrote when nothing does in four minutes */
  async listening(port: number): Promise<void> {
    const asked = `for i in $(seq 480); do curl -s -o /dev/null http://localhost:${port}/ && exit; sleep 0.5; done; cat /root/${port}.log; exit 1`;
    const { exitCode, stdoutText } = await this.sandbox.run(asked, { timeoutMs: 270_000 });
    if (exitCode !== 0) throw new Error(`nothing listens on ${port}:\n${stdoutText}`);
  }

  /** The header of the answer; its body is the caller's to read. */
  async open(url: string, { body, ...options }: Asked = {}): Promise<IncomingMessage> {
    const asked = request(url, { agent: this.agent, ...options });
    if (body === undefined || body instanceof Uint8Array) asked.end(body);
    else body.pipe(asked);
    const [answer] = (await once(asked, 'response')) as [IncomingMessage];
    return answer;
  }

  async ask(url: string, options: Asked = {}): Promise<Answer> {
    const answer = await this.open(url, options);
    const parts: Buffer[] = [];
    for await (const part of answer) parts.push(part as Buffer);
    return { status: answer.statusCode ?? 0, headers: answer.headers, body: Buffer.concat(parts) };
  }
}
