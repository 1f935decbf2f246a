import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ERROR_CATALOG } from '@instavm/wire';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ConfigError, parseConfig, printConfig, SECRETS, SETTINGS } from '../src/config.ts';

const reference = (name: string): Promise<string> =>
  readFile(join(import.meta.dirname, '../../../docs/reference', name), 'utf8');
const firstCells = (page: string): string[] =>
  Array.from(page.matchAll(/^\| `([^`]+)` \|/gm), (match) => match[1] ?? '');

describe('the configuration', () => {
  it('has defaults for everything and parses an address', () => {
    expect(parseConfig({}).INSTAVM_LISTEN).toEqual({ host: '127.0.0.1', port: 8787 });
    expect(parseConfig({ INSTAVM_LISTEN: '[::1]:0' }).INSTAVM_LISTEN).toEqual({ host: '::1', port: 0 });
  });

  it('names every problem at once', () => {
    const bad = { INSTAVM_LISTEN: 'here', INSTAVM_LISTNE: 'x', INSTAVM_LOG_LEVEL: 'loud' };
    expect(() => parseConfig(bad)).toThrow(ConfigError);
    expect(() => parseConfig(bad)).toThrow(/INSTAVM_LISTNE[\s\S]*|INSTAVM_LISTEN/);
    for (const name of Object.keys(bad)) expect(() => parseConfig(bad)).toThrow(name);
  });

  it('wants what belongs together together', () => {
    const acme = { INSTAVM_ACME_DIRECTORY: 'https://ca.example/dir' };
    expect(parseConfig(acme).INSTAVM_ACME_DIRECTORY).toBe('https://ca.example/dir');
    for (const [env, problem] of [
      [{ INSTAVM_PREVIEW_CERT: 'c' }, 'INSTAVM_PREVIEW_CERT: needs INSTAVM_PREVIEW_KEY'],
      [{ INSTAVM_ACME_EMAIL: 'a@b.example' }, 'INSTAVM_ACME_EMAIL: needs INSTAVM_ACME_DIRECTORY'],
      [{ ...acme, INSTAVM_ACME_EAB_KID: 'k' }, 'INSTAVM_ACME_EAB_KID: needs INSTAVM_ACME_EAB_HMAC'],
      [{ ...acme, INSTAVM_PREVIEW_LISTEN: 'off' }, 'INSTAVM_ACME_DIRECTORY: needs INSTAVM_PREVIEW_LISTEN'],
      [{ INSTAVM_ACME_DIRECTORY: 'http://ca.example/dir' }, 'must be an https URL'],
      [{ ...acme, INSTAVM_ACME_DNS_HOOK: 'hook' }, 'must be an absolute path'],
    ] as const) {
      expect(() => parseConfig(env)).toThrow(problem);
    }
  });

  it('takes a range of user ids, and none that is upside down or holds root', () => {
    const rangeOf = (text: string) => parseConfig({ INSTAVM_VMM_UIDS: text }).INSTAVM_VMM_UIDS;
    expect(rangeOf('300000-300009')).toEqual({ first: 300_000, count: 10 });
    for (const bad of ['0-10', '20-10', '300000', '1-4294967296'])
      expect(() => rangeOf(bad)).toThrow('INSTAVM_VMM_UIDS: must be first-last');
  });

  it('takes no number for what is none: an empty price is not free', () => {
    expect(parseConfig({ INSTAVM_RATE_VCPU_HOUR: '0.5' }).INSTAVM_RATE_VCPU_HOUR).toBe(500_000);
    expect(parseConfig({}).INSTAVM_CREDIT_WELCOME).toBe(50_000_000);
    for (const name of ['INSTAVM_RATE_VCPU_HOUR', 'INSTAVM_CREDIT_WELCOME', 'INSTAVM_REQUESTS_PER_MINUTE'])
      for (const slip of ['', ' ', '0x10', '-1', '1e400', '50$'])
        expect(() => parseConfig({ [name]: slip }), slip).toThrow(`${name}: must be a number`);
  });

  it('lets the settings of clients stand in the same environment', () => {
    expect(() => parseConfig({ INSTAVM_API_KEY: 'k', INSTAVM_BASE_URL: 'http://h', HOME: '/root' })).not.toThrow();
  });

  it('is the one that the reference describes', async () => {
    expect(firstCells(await reference('configuration.md')).sort()).toEqual(Object.keys(SETTINGS).sort());
  });
});

describe('a configuration file', () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'instavm-config-test-'));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));
  const fileOf = async (text: string): Promise<string> => {
    const path = join(directory, 'instavmd.yaml');
    await writeFile(path, text);
    return path;
  };
  const SECRET = 'c2VjcmV0LXRoYXQtaXM';

  it('holds the same settings, and the environment wins', async () => {
    const path = await fileOf(
      `listen: 127.0.0.1:1\nmax_vcpus: 9\negress_forbidden_cidrs:\n  - 10.0.0.0/8\n  - fd00::/8\n`,
    );
    expect(parseConfig({ INSTAVM_CONFIG: path, INSTAVM_LISTEN: '127.0.0.1:2' })).toMatchObject({
      INSTAVM_LISTEN: { port: 2 },
      INSTAVM_MAX_VCPUS: 9,
      INSTAVM_EGRESS_FORBIDDEN_CIDRS: ['10.0.0.0/8', 'fd00::/8'],
    });
  });

  it('is refused with every problem, the line of each, and the name that was meant', async () => {
    const path = await fileOf('listne: 127.0.0.1:1\nvmm: magic\nconfig: other.yaml\nsign_up:\n  open: yes\n');
    const message = (() => {
      try {
        return String(parseConfig({ INSTAVM_WRAM_POOL: '1' }, path));
      } catch (error) {
        return (error as Error).message;
      }
    })();
    for (const problem of [
      `${path}:1: listne: no such setting; did you mean listen?`,
      `${path}:2: vmm: Invalid option`,
      `${path}:3: config: a file names no other`,
      `${path}:4: sign_up: must be one value, or a list of values`,
      'INSTAVM_WRAM_POOL: no such setting; did you mean INSTAVM_WARM_POOL?',
    ])
      expect(message).toContain(problem);
  });

  it('is refused with the line when it is no YAML, has a name twice, or cannot be read', async () => {
    for (const [text, problem] of [
      ['listen: a\nlisten: b\n', ':2: Map keys must be unique'],
      ['listen: "[::1]:1"\nINSTAVM_LISTEN: "[::1]:2"\n', ':2: INSTAVM_LISTEN: is given, and '],
      ['listen: [a\n', ':2: '],
      ['- listen\n', ':1: is no list of "name: value"'],
    ] as const)
      expect(() => parseConfig({}, `${directory}/instavmd.yaml`), await fileOf(text)).toThrow(problem);
    expect(() => parseConfig({}, '/nonexistent.yaml')).toThrow('cannot read /nonexistent.yaml (ENOENT)');
  });

  it('may name files that hold secrets, which are shown to nobody', async () => {
    const secret = join(directory, 'eab');
    await writeFile(secret, `${SECRET}\n`);
    const path = await fileOf(
      `acme_directory: https://ca.example/dir\nacme_eab_kid: k\nacme_eab_hmac_file: ${secret}\nlisten: '[::1]:5'\n`,
    );
    expect(parseConfig({}, path).INSTAVM_ACME_EAB_HMAC).toBe(SECRET);
    expect(() => parseConfig({ INSTAVM_LISTEN_FILE: secret })).toThrow('INSTAVM_LISTEN_FILE: no such setting');
    expect(() => parseConfig({ INSTAVM_ACME_EAB_HMAC: SECRET, INSTAVM_ACME_EAB_HMAC_FILE: secret })).toThrow('too');
    const printed = printConfig({ INSTAVM_MAX_VCPUS: '3' }, path);
    expect(printed).not.toContain(SECRET);
    for (const line of [
      `listen: "[::1]:5"  # ${path}:4: listen`,
      'max_vcpus: "3"  # environment',
      '# sign_up: "closed"',
    ])
      expect(printed).toContain(line);
    // What is printed is a file that can be read, and says the same but for the secrets.
    const again = printed.replace(/^acme_eab_kid.*$/m, '');
    expect(parseConfig({}, await fileOf(again))).toMatchObject({ INSTAVM_MAX_VCPUS: 3, INSTAVM_LISTEN: { port: 5 } });
  });

  it('may do so for the settings that the reference names', async () => {
    const page = await reference('configuration.md');
    const [, named = ''] = /^\*\*Secrets\*\* \(([^)]*)\)/m.exec(page) ?? [];
    expect(Array.from(named.matchAll(/`([^`]+)`/g), (match) => match[1]).sort()).toEqual([...SECRETS].sort());
  });
});

describe('the error catalog', () => {
  it('is the one that the reference describes', async () => {
    expect(firstCells(await reference('errors.md')).sort()).toEqual(Object.keys(ERROR_CATALOG).sort());
  });
});
