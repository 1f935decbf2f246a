/** What a command finds in a guest made from our images: the promise of the base image, kernel and overlay, kept. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AgentClient } from '@instavm/agent-client';
import { type MicroVm, newIncarnationId } from '@instavm/core';
import { defaultCacheDirectory, ensureGuestImages, GUEST_AGENT_PATH } from '@instavm/images';
import { createQemuVmm, PRIVILEGES_ONLY, qemuVersion, UNLIMITED } from '@instavm/vmm/qemu';
import { afterAll, beforeAll, expect, test } from 'vitest';

const DEADLINE_MS = 200_000;
let directory: string;
let vm: MicroVm | undefined;
let agent: AgentClient | undefined;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-base-'));
  const location = { cacheDirectory: defaultCacheDirectory(process.env), agentPath: GUEST_AGENT_PATH };
  const images = await ensureGuestImages(location, () => {});
  const vmm = createQemuVmm({
    templatesDirectory: join(directory, 'templates'),
    runDirectory: join(directory, 'run'),
    accelerator: 'tcg',
    version: await qemuVersion(),
    confinement: PRIVILEGES_ONLY,
    disk: UNLIMITED,
  });
  const template = await vmm.buildTemplate(images, { memoryMib: 512, vcpus: 1 }, () => {});
  vm = await vmm.restore(template, newIncarnationId());
  agent = await AgentClient.open(await vm.connect('control'), DEADLINE_MS);
  await agent.lifecycle.personalize({
    unixTimeNs: BigInt(Date.now()) * 1_000_000n,
    entropy: crypto.getRandomValues(new Uint8Array(64)),
    hostname: 'base-image-test',
    machineId: 'a'.repeat(32),
  });
});

afterAll(async () => {
  agent?.close();
  await vm?.kill();
  await rm(directory, { recursive: true, force: true });
});

/** Runs a bash script as root. */
async function guest(script: string): Promise<{ readonly code: number; readonly output: string }> {
  if (!agent) throw new Error('the guest is not up');
  async function* requests() {
    yield { message: { case: 'start' as const, value: { command: { case: 'script' as const, value: script } } } };
  }
  const output: Uint8Array[] = [];
  let code = -1;
  for await (const { event } of agent.exec.run(requests(), { timeoutMs: DEADLINE_MS })) {
    if (event.case === 'stdout' || event.case === 'stderr') output.push(event.value);
    if (event.case === 'exit') code = event.value.code;
  }
  return { code, output: Buffer.concat(output).toString() };
}

test('every promised tool is on the PATH', async () => {
  const tools =
    'bash python python3 pip ipython3 node npm git curl rg sudo ps killall tar gawk fusermount3 nft ip gcc make jq less file zip unzip xz ssh';
  const { output } = await guest(
    `for tool in ${tools}; do command -v $tool > /dev/null || echo "missing: $tool"; done`,
  );
  expect(output).toBe('');
});

test('Python is 3.11 with venv, Node is 18, and pip works as root', async () => {
  const { code, output } = await guest(
    'python3 --version; node --version; python3 -m venv --without-pip /tmp/venv && /tmp/venv/bin/python -c "print(6 * 7)"; pip --version | cut -d" " -f1; ls /usr/lib/python3*/EXTERNALLY-MANAGED 2>/dev/null',
  );
  expect(output).toMatch(/^Python 3\.11\.\d+\nv18\.\d+\.\d+\n42\npip\n$/);
  expect(code).toBe(2);
});

test('certificates are there, and sudo keeps its set-user-id bit', async () => {
  const { output } = await guest('test -s /etc/ssl/certs/ca-certificates.crt && stat --format "%U %a" /usr/bin/sudo');
  expect(output).toBe('root 4755\n');
});

test('Python uses its compiled bytecode', async () => {
  const { output } = await guest('python3 -v -c "import json, IPython" 2>&1 | grep -E "stale|wrote" | head -3');
  expect(output).toBe('');
});

test('nothing of the machine that built the image is in it', async () => {
  const { output } = await guest(
    'grep -h "^URIs" /etc/apt/sources.list.d/* /etc/apt/sources.list 2>/dev/null; ls /var/lib/apt/lists /root; apt-config dump | grep -i "^acquire.*proxy"; ls /etc/ssh | grep host_key',
  );
  expect(output.replace(/^(\/var\/lib\/apt\/lists|\/root):\n|^\n|^(lock|partial|auxfiles)\n/gm, '')).toBe(
    'URIs: http://deb.debian.org/debian\nURIs: http://deb.debian.org/debian-security\n',
  );
});

test('the root is four writable gibibytes, formatted without work left for the background', async () => {
  const { output } = await guest(
    'touch /usr/bin/written && df --output=size -BG / | tail -1; ps -e | grep -c ext4lazyinit',
  );
  expect(output).toMatch(/^\s*4G\n0\n$/);
});

test('netfilter, FUSE and loop devices work', async () => {
  const ruleset =
    'table inet t { chain c { type nat hook output priority 0; tcp dport 80 redirect to :8080; }; chain d { type filter hook output priority 0; udp dport 1 reject; }; }';
  const { code, output } = await guest(
    `nft '${ruleset}' && nft delete table inet t && test -c /dev/fuse && losetup --find > /dev/null`,
  );
  expect({ code, output }).toEqual({ code: 0, output: '' });
});
