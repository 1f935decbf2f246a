/** Opens an address in the person's browser, where there is one. */
import { spawn } from 'node:child_process';

/** A machine without a desktop has no opener, or one that fails: the address is printed as well, so that is no error. */
export function openInBrowser(url: string): void {
  const child = spawn('xdg-open', [url], { detached: true, stdio: 'ignore' });
  child.on('error', () => {});
  child.unref();
}
