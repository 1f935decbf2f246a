/** Which modules of the Debian cloud kernel a guest needs, and the order that loads them. Pure. */

/**
 * Devices come over virtio-mmio and are described by ACPI; the drivers themselves are modules in this kernel, as are erofs,
 * overlay and everything of netfilter. ext4 is built in.
 */
export const GUEST_MODULES: readonly string[] = [
  'virtio_mmio',
  'virtio_blk',
  'virtio_console',
  'virtio-rng',
  'erofs',
  'overlay',
  'vmw_vsock_virtio_transport',
  'fuse',
  'loop',
  'tun',
  'dummy',
  'nf_tables',
  'nft_chain_nat',
  'nft_nat',
  'nft_redir',
  'nft_ct',
  'nft_limit',
  'nft_reject_inet',
  // What the agent's own table needs: which destinations are outside, holding a SYN, handing a flow to the agent.
  'nft_fib_inet',
  'nfnetlink_queue',
  'nft_queue',
  'nft_tproxy',
  'veth',
  'bridge',
];

/**
 * @param modulesDep text of `modules.dep`: `path.ko: dependency.ko …`
 * @returns paths as in `modules.dep`, every dependency before what needs it, each once
 * @throws Error naming a module that the kernel does not have
 */
export function moduleLoadOrder(modulesDep: string, wanted: readonly string[]): string[] {
  const dependencies = new Map<string, string[]>();
  const pathByName = new Map<string, string>();
  for (const line of modulesDep.split('\n')) {
    const colon = line.indexOf(':');
    if (colon < 0) continue;
    const path = line.slice(0, colon);
    dependencies.set(
      path,
      line
        .slice(colon + 1)
        .trim()
        .split(/\s+/)
        .filter(Boolean),
    );
    pathByName.set(moduleName(path), path);
  }

  const order = new Set<string>();
  const underway = new Set<string>();
  const visit = (path: string): void => {
    if (order.has(path)) return;
    if (underway.has(path)) throw new Error(`modules.dep has a cycle through ${path}`);
    underway.add(path);
    for (const dependency of dependencies.get(path) ?? []) visit(dependency);
    underway.delete(path);
    order.add(path);
  };
  for (const name of wanted) {
    const path = pathByName.get(moduleName(name));
    if (path === undefined) throw new Error(`the kernel package has no module ${name}`);
    visit(path);
  }
  return [...order];
}

/** The kernel treats `-` and `_` in module names as equal. */
function moduleName(path: string): string {
  return path
    .slice(path.lastIndexOf('/') + 1)
    .replace(/\.ko$/, '')
    .replaceAll('-', '_');
}
