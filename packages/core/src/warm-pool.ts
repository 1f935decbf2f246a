/**
 * MicroVMs of one size that run and answer before anyone asked for one. Filled one at a time and only while nothing else is being
 * made, so that it never slows what it is for; emptied when the host needs the memory.
 */
import { type ConstructionPorts, discard, type Prepared, prepare } from './construction.ts';
import type { GuestLink } from './guest.ts';
import { newIncarnationId, type TemplateKey } from './ids.ts';
import type { Templates } from './templates.ts';
import type { MachineSize } from './vmm.ts';

export type WarmPoolOptions = {
  readonly size: MachineSize;
  /** How many are kept; 0: none. */
  readonly depth: number;
  /** Whether the host has memory for one more than is asked for. */
  readonly hasRoom: () => boolean;
};

/** Without a creation for so long, a refill disturbs nobody. */
const QUIET_MS = 1_000;
const REHEARSAL_DEADLINE_MS = 30_000;
/** After a refill that failed, or while there is no room. */
const PAUSE_MS = 15_000;

type Ready<Guest extends GuestLink> = { readonly prepared: Prepared<Guest>; readonly templateKey: TemplateKey };

export class WarmPool<Guest extends GuestLink> {
  readonly #ports: ConstructionPorts<Guest>;
  readonly #templates: Templates;
  readonly #options: WarmPoolOptions;
  readonly #ready: Ready<Guest>[] = [];
  readonly #releasing = new Set<Promise<void>>();
  #busy = 0;
  #filling: Promise<void> | undefined;
  #isClosed = false;
  #cancel: () => void = () => {};

  constructor(ports: ConstructionPorts<Guest>, templates: Templates, options: WarmPoolOptions) {
    this.#ports = ports;
    this.#templates = templates;
    this.#options = options;
  }

  get depth(): number {
    return this.#ready.length;
  }

  /** Begins to keep it filled. */
  open(): void {
    this.#fillAfter(QUIET_MS);
  }

  /** @returns one that nobody else gets, made from the present template; the caller releases it */
  take(size: MachineSize): Prepared<Guest> | undefined {
    if (!isSame(size, this.#options.size)) return undefined;
    for (let next = this.#ready.shift(); next !== undefined; next = this.#ready.shift()) {
      if (next.templateKey === this.#templates.keyOf(size)) return next.prepared;
      this.#release(next);
    }
    return undefined;
  }

  /** A request is making a microVM: no refill begins before it is done. @returns to be called then */
  yieldTo(): () => void {
    this.#busy++;
    this.#cancel();
    return () => {
      this.#busy--;
      this.#fillAfter(QUIET_MS);
    };
  }

  /** Gives everything back to a host that is short of memory. */
  drain(): void {
    for (const each of this.#ready.splice(0)) this.#release(each);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel();
    await this.#filling;
    this.drain();
    await Promise.all(this.#releasing);
  }

  #fillAfter(ms: number): void {
    this.#cancel();
    const isWanted = !this.#isClosed && this.#busy === 0 && this.#options.depth > 0;
    if (!isWanted) return;
    const { clock } = this.#ports;
    this.#cancel = clock.schedule(new Date(clock.now().getTime() + ms), () => {
      this.#filling ??= this.#tend().finally(() => {
        this.#filling = undefined;
      });
    });
  }

  /** Never rejects. */
  async #tend(): Promise<void> {
    const { depth, hasRoom } = this.#options;
    try {
      const isRoom = hasRoom();
      if (!isRoom) this.drain();
      // A full pool is looked after too: the host may come to need its memory.
      if (!isRoom || this.#ready.length >= depth) return this.#fillAfter(PAUSE_MS);
      await this.#fill();
      this.#fillAfter(QUIET_MS);
    } catch (error) {
      this.#ports.log.warn({ err: error }, 'the warm pool could not be filled');
      this.#fillAfter(PAUSE_MS);
    }
  }

  async #fill(): Promise<void> {
    const template = await this.#templates.get(this.#options.size);
    const prepared = await prepare(this.#ports, template, newIncarnationId());
    try {
      await prepared.guest.rehearse(REHEARSAL_DEADLINE_MS);
    } catch (error) {
      await discard(this.#ports.log, prepared);
      throw error;
    }
    const ready = { prepared, templateKey: template.key };
    if (this.#isClosed) return this.#release(ready);
    this.#ready.push(ready);
    const leave = (): void => {
      const at = this.#ready.indexOf(ready);
      if (at < 0) return;
      this.#ready.splice(at, 1);
      this.#release(ready);
      this.#fillAfter(QUIET_MS);
    };
    prepared.vm.exited.then(leave);
    prepared.guest.closed.then(leave);
  }

  #release({ prepared }: Ready<Guest>): void {
    const released = prepared.cleanup
      .run()
      .catch((error: unknown) => this.#ports.log.warn({ err: error }, 'releasing a warm microVM'))
      .finally(() => this.#releasing.delete(released));
    this.#releasing.add(released);
  }
}

const isSame = (a: MachineSize, b: MachineSize): boolean => a.memoryMib === b.memoryMib && a.vcpus === b.vcpus;
