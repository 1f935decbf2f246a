/** Certificates of one authority on disk: one file a name (mode 0600) with certificate and key, so that they never disagree. */
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { readIfExists, replaceSecret, syncDirectory } from '../files.ts';
import { type Certificate, checkedCertificate, sectionsOf } from './certificate.ts';

const MAX_FILE_BYTES = 512 * 1024;

export class CertificateStore {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  static async open(directory: string): Promise<CertificateStore> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    // Of a process that ended while it wrote.
    for (const file of await readdir(directory)) {
      if (file.endsWith('.partial')) await rm(join(directory, file));
    }
    return new CertificateStore(directory);
  }

  /** Names of which there is a file. */
  async names(): Promise<string[]> {
    const files = await readdir(this.#directory);
    return files.filter((file) => file.endsWith('.pem')).map((file) => file.slice(0, -4).replace(/^_\./, '*.'));
  }

  /** @returns undefined when there is no file. @throws Error when it is damaged */
  async load(name: string): Promise<Certificate | undefined> {
    const { cert, key } = await this.sections(name);
    if (cert === undefined && key === undefined) return undefined;
    return checkedCertificate(name, cert, key ?? '');
  }

  async sections(name: string): Promise<ReturnType<typeof sectionsOf>> {
    const path = this.#path(name);
    const size = await stat(path).then(
      (file) => file.size,
      () => 0, // none, or gone since; reading says the rest
    );
    if (size > MAX_FILE_BYTES) throw new Error(`the certificate file is larger than ${MAX_FILE_BYTES} bytes`);
    return sectionsOf((await readIfExists(path)) ?? '');
  }

  save(name: string, { cert, key }: Certificate): Promise<void> {
    return replaceSecret(this.#path(name), `${key.trim()}\n${cert.trim()}\n`);
  }

  async delete(name: string): Promise<void> {
    await rm(this.#path(name), { force: true });
    await syncDirectory(this.#directory);
  }

  /** A name is a checked host name, with `*.` before it or not, so this is no path. */
  #path(name: string): string {
    return join(this.#directory, `${name.replace(/^\*\./, '_.')}.pem`);
  }
}
