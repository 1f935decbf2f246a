import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ERROR_CATALOG } from '@instavm/wire';
import { describe, expect, it } from 'vitest';
import { ConfigError, parseConfig, SETTINGS } from '../src/config.ts';

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

  it('lets the settings of clients stand in the same environment', () => {
    expect(() => parseConfig({ INSTAVM_API_KEY: 'k', INSTAVM_BASE_URL: 'http://h', HOME: '/root' })).not.toThrow();
  });

  it('is the one that the reference describes', async () => {
    expect(firstCells(await reference('configuration.md')).sort()).toEqual(Object.keys(SETTINGS).sort());
  });
});

describe('the error catalog', () => {
  it('is the one that the reference describes', async () => {
    expect(firstCells(await reference('errors.md')).sort()).toEqual(Object.keys(ERROR_CATALOG).sort());
  });
});
