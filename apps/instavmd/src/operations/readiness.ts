/** Whether this daemon can do its work now, part by part: for load balancers and service managers, which ask often and without a key. */
import { DEFAULT_SIZE, type Templates, type Vmm } from '@instavm/core';
import { type Database, schemaOf } from '@instavm/store';
import { type ErrorCode, InstaVMError } from '@instavm/wire';

/** However often it is asked, it looks no more often than this. */
const LOOKED_WITHIN_MS = 1_000;

export type ReadinessParts = {
  readonly database: Database;
  readonly vmm: Pick<Vmm, 'backend' | 'accelerator' | 'findTemplate'>;
  readonly templates: Pick<Templates, 'keyOf'>;
};

type Part = { readonly ok: true; readonly [fact: string]: unknown } | { readonly ok: false; readonly why: string };
export type Report = Readonly<Record<'daemon' | 'store' | 'vmm' | 'template', Part>>;

/** What is said of a part that is not ready; the first of them is the cause that is named. */
const CAUSES: Readonly<Record<keyof Report, ErrorCode>> = {
  daemon: 'shutting_down',
  store: 'store_unavailable',
  vmm: 'boot_failed',
  template: 'template_missing',
};

export class Readiness {
  readonly #parts: ReadinessParts;
  #looked: { readonly at: number; readonly report: Promise<Report> } | undefined;
  #isStopping = false;

  constructor(parts: ReadinessParts) {
    this.#parts = parts;
  }

  /** From here on it is not ready, whatever else holds. */
  stopping(): void {
    this.#isStopping = true;
    this.#looked = undefined;
  }

  /** @throws shutting_down, store_unavailable, template_missing, with every part in `details` */
  async check(): Promise<Report> {
    const now = performance.now();
    if (this.#looked === undefined || now - this.#looked.at > LOOKED_WITHIN_MS)
      this.#looked = { at: now, report: this.#look() };
    const report = await this.#looked.report;
    for (const [name, code] of Object.entries(CAUSES) as [keyof Report, ErrorCode][]) {
      const part = report[name];
      if (!part.ok) throw new InstaVMError(code, `not ready: ${part.why}`, { details: { parts: report } });
    }
    return report;
  }

  /** Never rejects. */
  async #look(): Promise<Report> {
    const { database, vmm, templates } = this.#parts;
    const [store, template] = await Promise.all([
      part('the database cannot be read', async () => ({ schema: await schemaOf(database) })),
      part('the template of the default size cannot be read', async () => {
        const found = await vmm.findTemplate(templates.keyOf(DEFAULT_SIZE));
        if (found === undefined) throw new InstaVMError('template_missing', 'the template of the default size is gone');
        return { ...found.size };
      }),
    ]);
    // Chosen, and where that says something probed with a guest, before anything listens.
    const { backend, accelerator } = vmm;
    const daemon: Part = this.#isStopping ? { ok: false, why: 'the daemon is stopping' } : { ok: true };
    return { daemon, store, vmm: { ok: true, backend, accelerator }, template };
  }
}

/** @param why when it failed for a reason that is not for strangers */
async function part(why: string, look: () => Promise<Readonly<Record<string, unknown>>>): Promise<Part> {
  try {
    return { ok: true, ...(await look()) };
  } catch (error) {
    return { ok: false, why: error instanceof InstaVMError ? error.message : why };
  }
}
