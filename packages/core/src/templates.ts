/** Templates by size: found, or built once while everyone who needs the same one waits for it. */
import type { TemplateKey } from './ids.ts';
import type { GuestImages, MachineSize, Template, Vmm } from './vmm.ts';

export type TemplateProgress = (size: MachineSize, step: string) => void;

export class Templates {
  readonly #vmm: Vmm;
  readonly #images: GuestImages;
  readonly #progress: TemplateProgress;
  readonly #known = new Map<TemplateKey, Promise<Template>>();

  constructor(vmm: Vmm, images: GuestImages, progress: TemplateProgress) {
    this.#vmm = vmm;
    this.#images = images;
    this.#progress = progress;
  }

  keyOf(size: MachineSize): TemplateKey {
    return this.#vmm.templateKey(this.#images, size);
  }

  /** @throws boot_failed; the next call tries again */
  get(size: MachineSize): Promise<Template> {
    const key = this.keyOf(size);
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const template = this.#findOrBuild(key, size);
    this.#known.set(key, template);
    template.catch(() => this.#known.delete(key));
    return template;
  }

  async #findOrBuild(key: TemplateKey, size: MachineSize): Promise<Template> {
    const found = await this.#vmm.findTemplate(key);
    return found ?? (await this.#vmm.buildTemplate(this.#images, size, (step) => this.#progress(size, step)));
  }
}
