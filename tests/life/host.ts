/** What the life of a sandbox is told over: a backend, and where to look for what there is of its microVMs. One telling for all backends; a file of tests names the one. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { assertNothingLeft, type TestDaemon, type TestDaemonOptions } from '@instavm/testing';
import { InstaVM } from 'instavm';
import { afterAll, beforeAll, beforeEach, expect } from 'vitest';

export type Host = {
  readonly vmm: 'firecracker' | 'qemu';
  /** For whatever takes its time in a guest. */
  readonly poll: { readonly timeout: number; readonly interval: number };
  /** Of a daemon that makes a template first. */
  readonly startMs: number;
  /** Of a test with some suspensions in it. */
  readonly longMs: number;
  /** Of a microVM, in its home: without these nobody can talk to its VMM. */
  readonly sockets: readonly string[];
  start(dataDirectory: string, settings?: Settings): Promise<TestDaemon>;
  /** Pids. */
  vmms(dataDirectory: string): Promise<number[]>;
  /** Names of what {@link homeOf} finds. */
  homes(dataDirectory: string): Promise<string[]>;
  /** The directory of a microVM, with its record `vmm.json`. */
  homeOf(dataDirectory: string, incarnationId: string | null): string;
  /** Whether memory of this microVM has begun to be written. At once: a moment later it may have ended. */
  isSaving(dataDirectory: string, incarnationId: string | null): boolean;
  /** Everything of a microVM that is somewhere now: empty when none runs and none is suspended half-way. */
  traces(dataDirectory: string): Promise<string[]>;
  /** The same monitor as another release. @param directory where everybody may read. @returns settings of a daemon */
  anotherRelease(directory: string): Promise<Record<string, string>>;
  /** Of this monitor, in words that {@link anotherRelease} changes. */
  readonly releaseNames: RegExp;
  /** A cache for daemons of another release, too. @param directory an empty one */
  ownCache(directory: string): Promise<Cache>;
};

export type Settings = Pick<TestDaemonOptions, 'env' | 'leftOpen'>;

export type Cache = {
  readonly templates: string;
  readonly env: Readonly<Record<string, string>>;
};

const LOG_LINES = 40;

const tell = (daemon: TestDaemon): void => console.log(daemon.log().split('\n').slice(-LOG_LINES).join('\n'));

/** @param place where the directory is made, if not among other temporary files. @returns a data directory for the tests of a file, which may move it; nothing of a microVM may be in it at the end */
export function useDataDirectory(host: Host, place: () => string | undefined = () => undefined): { path: string } {
  const own = { path: '' };
  beforeAll(async () => {
    own.path = await mkdtemp(join(place() ?? tmpdir(), 'instavm-life-'));
  });
  afterAll(async () => {
    expect(await host.traces(own.path)).toEqual([]);
    await assertNothingLeft(own.path);
    await rm(own.path, { recursive: true, force: true });
  });
  return own;
}

export type Running = {
  readonly daemon: TestDaemon;
  readonly client: InstaVM;
  /** Another daemon in its place, which was stopped or killed. */
  again(): Promise<void>;
};

/** A daemon for the tests of a file. @param settings are asked for when it is started */
export function useDaemon(
  host: Host,
  directory: { readonly path: string },
  settings: () => Promise<Settings> = async () => ({}),
): Running {
  let daemon: TestDaemon | undefined;
  let client: InstaVM | undefined;
  const begin = async (): Promise<void> => {
    client?.close();
    daemon = await host.start(directory.path, await settings());
    client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  };
  beforeAll(begin, host.startMs);
  // What the daemon said is told then, and what it has left is not the next one's.
  beforeEach(({ onTestFailed }) =>
    onTestFailed(async () => {
      if (daemon !== undefined) tell(daemon);
      const left = (await client?.sandboxes.list().catch(() => [])) ?? [];
      await Promise.allSettled(left.map(({ id }) => client?.sandboxes.attach(id).delete()));
    }),
  );
  afterAll(async () => {
    client?.close();
    await daemon?.stop();
  });
  const started = <T>(one: T | undefined): T => {
    if (one === undefined) throw new Error('the daemon has not been started');
    return one;
  };
  return {
    get daemon() {
      return started(daemon);
    },
    get client() {
      return started(client);
    },
    again: begin,
  };
}

/** A daemon for as long as `body` takes. @param end how it ends */
export async function within(
  host: Host,
  directory: { readonly path: string },
  env: Readonly<Record<string, string>>,
  body: (client: InstaVM, daemon: TestDaemon) => Promise<void>,
  end: 'stop' | 'crash' = 'stop',
): Promise<void> {
  const daemon = await host.start(directory.path, { env });
  const client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  try {
    await body(client, daemon);
  } catch (error) {
    tell(daemon);
    throw error;
  } finally {
    client.close();
    await daemon[end]();
  }
}
