/**
 * Whether KVM really runs a guest here. An openable /dev/kvm proves nothing: on some hosts (nested virtualisation of certain kinds) an
 * ordinary kernel hangs for ever in it. So a real guest is booted with a deadline, and the verdict is kept until the next boot of the host.
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { access, constants, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { GuestImages, TemplateKey } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { z } from 'zod';
import { findExecutable } from '../host/executable.ts';
import { makeOwnedDirectory } from '../host/owned-directories.ts';
import { parseJson } from '../host/parse-json.ts';
import { KVM_PROBE } from '../host/template-leftovers.ts';
import { QEMU_BINARY } from './arguments.ts';
import { buildTemplate } from './template.ts';

/** A guest under working KVM answers within two seconds. */
const PROBE_DEADLINE_MS = 20_000;
const PROBE_SIZE = { memoryMib: 256, vcpus: 1 };

const KvmVerdict = z.object({ usable: z.boolean(), reason: z.string(), hostBootId: z.string(), qemu: z.string() });
export type KvmVerdict = z.infer<typeof KvmVerdict>;

/**
 * @param cacheDirectory keeps the verdict, and a probe template while it is made
 * @param progress told before the probe guest is booted, which may take until the deadline
 * @param binary the QEMU that would run guests
 */
export async function probeKvm(
  images: GuestImages,
  cacheDirectory: string,
  progress: (message: string) => void,
  binary = QEMU_BINARY,
): Promise<KvmVerdict> {
  const [hostBootId, qemu] = await Promise.all([
    readFile('/proc/sys/kernel/random/boot_id', 'utf8'),
    qemuVersion(binary),
  ]);
  const verdictOf = (usable: boolean, reason: string): KvmVerdict => ({
    usable,
    reason,
    hostBootId: hostBootId.trim(),
    qemu,
  });
  const opened = await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => undefined,
    (error: NodeJS.ErrnoException) => error.code ?? 'unknown',
  );
  if (opened === 'ENOENT')
    return verdictOf(false, '/dev/kvm does not exist: no hardware virtualisation, or kvm is not loaded');
  if (opened !== undefined) return verdictOf(false, '/dev/kvm cannot be opened: add the user to the group kvm');
  const file = join(cacheDirectory, 'kvm-verdict.json');
  const kept = parseJson(KvmVerdict, await readFile(file, 'utf8').catch(() => ''));
  if (kept?.hostBootId === hostBootId.trim() && kept.qemu === qemu) return kept;
  progress(`booting a probe guest to see whether KVM works (at most ${PROBE_DEADLINE_MS / 1000} s)`);
  const verdict = verdictOf(...(await bootProbe(images, cacheDirectory, binary)));
  await mkdir(cacheDirectory, { recursive: true });
  const written = `${file}.${randomBytes(4).toString('hex')}`;
  await writeFile(written, `${JSON.stringify(verdict)}\n`);
  await rename(written, file);
  return verdict;
}

async function bootProbe(images: GuestImages, cacheDirectory: string, binary: string): Promise<[boolean, string]> {
  const templatesDirectory = await makeOwnedDirectory(cacheDirectory, KVM_PROBE);
  try {
    await buildTemplate({
      binary,
      templatesDirectory,
      key: 'kvm-probe' as TemplateKey,
      madeBy: 'probe',
      images,
      size: PROBE_SIZE,
      accelerator: 'kvm',
      progress: () => {},
      bootDeadlineMs: PROBE_DEADLINE_MS,
    });
    return [true, 'a probe guest ran and was frozen'];
  } catch (error) {
    const why = error instanceof InstaVMError ? error.message : String(error);
    return [false, `/dev/kvm opens, but a probe guest does not run in it (${why})`];
  } finally {
    await rm(templatesDirectory, { recursive: true, force: true });
  }
}

/** Its path: what starts it has no search path. @param name a path, or a name on ours. @throws boot_failed */
export async function locateQemu(name: string): Promise<string> {
  const path = await findExecutable(name);
  if (path !== undefined) return path;
  throw new InstaVMError('boot_failed', `there is no executable ${name}`, {
    hint: 'Run: npm run setup. Or set INSTAVM_QEMU_BIN to its path.',
  });
}

/** First line of `qemu-system-x86_64 --version`. @throws boot_failed when QEMU is not installed */
export async function qemuVersion(binary = QEMU_BINARY): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(binary, ['--version']);
    return stdout.split('\n', 1)[0] ?? '';
  } catch (cause) {
    throw new InstaVMError('boot_failed', `${binary} cannot be run`, { cause, hint: 'Run: npm run setup' });
  }
}
