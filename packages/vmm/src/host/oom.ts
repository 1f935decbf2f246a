/** Whom the kernel ends when the host has no memory left. */
import { readFile, writeFile } from 'node:fs/promises';

/** A service manager may protect the daemon; its microVMs inherit that, and would be spared before everything else on the host. */
export async function giveUpOomProtection(pid: number): Promise<void> {
  if (Number(await readFile('/proc/self/oom_score_adj', 'utf8')) >= 0) return;
  await writeFile(`/proc/${pid}/oom_score_adj`, '0').catch((error: NodeJS.ErrnoException) => {
    // It has ended, of which its owner is told.
    if (error.code !== 'ENOENT' && error.code !== 'ESRCH') throw error;
  });
}
