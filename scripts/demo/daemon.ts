/** A daemon for the demo: its own process, data directory and port; its structured log tells where the time went. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { ROOT } from '../steps/paths.ts';

/** The first start on a machine boots and freezes a template. */
const START_DEADLINE_MS = 300_000;

type LogLine = {
  msg?: string;
  url?: string;
  ms?: number;
  reqId?: string;
  req?: { method: string; path: string };
  responseTime?: number;
};

export type DemoDaemon = {
  readonly url: string;
  readonly description: string;
  readonly adminKeyPath: string;
  readonly timings: Timings;
  stop(): Promise<void>;
};

/** Times of one run, as the daemon measured them. */
export class Timings {
  readonly #methods = new Map<string, string>();
  #createMs: number | undefined;
  #deleteMs: number | undefined;
  #execsMs: number[] = [];

  reset(): void {
    this.#createMs = undefined;
    this.#deleteMs = undefined;
    this.#execsMs = [];
  }

  add(line: LogLine): void {
    if (line.req && line.reqId) this.#methods.set(line.reqId, `${line.req.method} ${line.req.path}`);
    if (line.msg === 'exec ended' && line.ms !== undefined) this.#execsMs.push(line.ms);
    if (line.msg !== 'request completed' || line.reqId === undefined || line.responseTime === undefined) return;
    const route = this.#methods.get(line.reqId) ?? '';
    this.#methods.delete(line.reqId);
    if (route === 'POST /v2/sandboxes') this.#createMs = line.responseTime;
    if (/^DELETE \/v2\/sandboxes\/[^/]+$/.test(route)) this.#deleteMs ??= line.responseTime;
  }

  describe(totalMs: number): string {
    const ms = (value: number | undefined): string => (value === undefined ? '–' : `${Math.round(value)} ms`);
    const [first] = this.#execsMs;
    return `create ${ms(this.#createMs)} · first exec ${ms(first)} · ${this.#execsMs.length} execs · delete ${ms(this.#deleteMs)} · whole run ${ms(totalMs)}`;
  }
}

/** Nothing of it is left when it does not come to its start. @param signal ends a start that is under way */
export async function startDemoDaemon(dataDirectory: string, signal: AbortSignal): Promise<DemoDaemon> {
  const child = spawn(process.execPath, [join(ROOT, 'apps/instavmd/src/main.mjs')], {
    env: {
      ...process.env,
      INSTAVM_DATA_DIR: dataDirectory,
      INSTAVM_LISTEN: '127.0.0.1:0',
      INSTAVM_PREVIEW_LISTEN: '127.0.0.1:0',
      INSTAVM_LOG_LEVEL: 'info',
      INSTAVM_ON_STOP: 'end',
    },
    stdio: ['ignore', 'pipe', 'inherit'],
    // Ctrl-C in the terminal is the demo's to handle: it stops the daemon after the examples.
    detached: true,
  });
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
  const timings = new Timings();
  const started = new Promise<string>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('the daemon did not start in time')), START_DEADLINE_MS);
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener('abort', onAbort);
    if (signal.aborted) onAbort();
    createInterface({ input: child.stdout }).on('line', (text) => {
      const line = JSON.parse(text) as LogLine;
      timings.add(line);
      if (line.msg?.startsWith('template: ')) console.log(`  first start on this machine, ${line.msg}`);
      if (line.msg?.startsWith('booting a probe guest')) console.log(`  ${line.msg}`);
      if (line.msg?.startsWith('listening on ') && line.url) {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        resolve(line.url);
      }
    });
    ended.then((code) => {
      clearTimeout(timer);
      reject(new Error(`the daemon ended with status ${code}; run: npm run doctor`));
    });
  });
  const { url, health } = await started
    .then(async (url) => {
      const health = (await (await fetch(`${url}/healthz`)).json()) as { backend: string; accelerator: string };
      return { url, health };
    })
    .catch(async (error: unknown) => {
      child.kill('SIGTERM');
      await ended;
      throw error;
    });
  const boundary = health.accelerator === 'tcg' ? ', emulated: slow, and not a security boundary' : '';
  return {
    url,
    description: `${health.backend} microVMs (${health.accelerator}${boundary})`,
    adminKeyPath: join(dataDirectory, 'admin.key'),
    timings,
    stop: async () => {
      child.kill('SIGTERM');
      const code = await ended;
      if (code !== 0) throw new Error(`the daemon did not stop cleanly (status ${code})`);
    },
  };
}
