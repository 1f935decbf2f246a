/** The systemd unit: systemd itself reads it, and rates what it leaves open. That the daemon works in it is tested where systemd runs (tests/nested). */
import { spawnSync } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const ROOT = join(import.meta.dirname, '..');
const UNITS = join(ROOT, 'packaging/systemd');

const canAnalyze = spawnSync('systemd-analyze', ['--version']).status === 0;
if (!canAnalyze) console.warn('Tests of the systemd unit are skipped: systemd-analyze (Debian: systemd) cannot be run');

describe.skipIf(!canAnalyze)('the systemd unit', () => {
  let directory: string;
  const unit = (): string => join(directory, 'instavmd.service');
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'instavm-unit-test-'));
    const text = await readFile(join(UNITS, 'instavmd.service'), 'utf8');
    await writeFile(unit(), text.replaceAll('/opt/instavm', ROOT));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  const analyze = (...args: readonly string[]) => {
    const { status, stdout, stderr } = spawnSync('systemd-analyze', [...args, unit()], { encoding: 'utf8' });
    return { status, said: `${stdout}${stderr}` };
  };
  /** Tenths. */
  const exposed = (atMost: number) => analyze('security', '--offline=yes', '--no-pager', `--threshold=${atMost}`);

  it('is one that systemd understands, as root and with the drop-in for QEMU', async () => {
    expect(analyze('verify', '--man=no')).toEqual({ status: 0, said: '' });
    expect(exposed(50).status).toBe(0);
    await cp(join(UNITS, 'instavmd.service.d'), `${unit()}.d`, { recursive: true });
    expect(analyze('verify', '--man=no')).toEqual({ status: 0, said: '' });
    expect(exposed(30).status).toBe(0);
    // The measure can fail.
    expect(exposed(5).status).not.toBe(0);
  });

  it('allows the system calls that QEMU of an ordinary user cannot do without', async () => {
    const files = ['instavmd.service', 'instavmd.service.d/qemu.conf'].map((name) =>
      readFile(join(UNITS, name), 'utf8'),
    );
    const allowed = allowedSystemCalls((await Promise.all(files)).join('\n'));
    const needed = ['capset', 'prctl', 'prlimit64', 'seccomp', 'unshare'];
    expect(needed.filter((name) => !allowed.has(name))).toEqual([]);
    // The measure can fail.
    expect(allowed.has('init_module')).toBe(false);
  });
});

/** As the systemd of this host, whose groups of system calls differ by release, understands it. @param unit with its drop-ins, in order */
function allowedSystemCalls(unit: string): Set<string> {
  const groups = new Map<string, string[]>();
  const { stdout } = spawnSync('systemd-analyze', ['syscall-filter', '--no-pager'], { encoding: 'utf8' });
  let members: string[] = [];
  for (const line of stdout.split('\n')) {
    if (line.startsWith('@')) {
      members = [];
      groups.set(line, members);
    } else if (/^ +[^ #]/.test(line)) members.push(line.trim());
  }
  const expand = (name: string): string[] => (name.startsWith('@') ? (groups.get(name) ?? []).flatMap(expand) : [name]);
  const allowed = new Set<string>();
  for (const [, not, names = ''] of unit.matchAll(/^SystemCallFilter=(~?)(.*)$/gm)) {
    if (names === '') allowed.clear();
    for (const call of names.split(' ').flatMap(expand)) {
      if (not === '~') allowed.delete(call);
      else allowed.add(call);
    }
  }
  return allowed;
}
