/** How a sandbox comes to run: in a fresh microVM, in one with the memory it was suspended with, or in one that outlived a daemon. */
import { InstaVMError } from '@instavm/wire';
import { attach, discard, type Personalized, type Prepared, prepare } from './construction.ts';
import type { GuestLink } from './guest.ts';
import { type FilesId, type IncarnationId, newIncarnationId } from './ids.ts';
import { failure, identityOf, idsOf, type OwnerParts, PERSONALIZE_DEADLINE_MS } from './parts.ts';
import type { ChangeMeaning } from './record-keeper.ts';
import type { SandboxChange } from './records.ts';
import { DEADLINES_MS } from './states.ts';
import type { MicroVm, VmSnapshot } from './vmm.ts';

/** A network that is not there by then comes later, or not at all. */
const NETWORK_DEADLINE_MS = 5_000;

/**
 * A fresh incarnation, from a snapshot or from the template of its size.
 * @throws shutting_down, quota_exceeded, capacity_unavailable, boot_failed, snapshot_incompatible, guest_unresponsive; it is failed then,
 * or as it was when it was not admitted, and nothing is left
 */
export async function create<Guest extends GuestLink>(
  parts: OwnerParts<Guest>,
  source: VmSnapshot | undefined,
): Promise<void> {
  const { ports, keeper } = parts;
  const { size, ttlSeconds, epoch } = keeper.record;
  const startedAt = ports.clock.now();
  await ports.requireStorage(keeper.record.accountId);
  await admitted(parts, () => {
    const pooled = source === undefined ? ports.pool.take(size) : undefined;
    const from = pooled !== undefined ? 'warm' : source === undefined ? 'template' : 'snapshot';
    return ports.telemetry.timed('sandbox.create', { sandboxId: keeper.record.id, source: from }, () => make(pooled));
  });

  async function make(pooled: Prepared<Guest> | undefined): Promise<void> {
    const id = pooled?.id ?? newIncarnationId();
    const expiresAt = new Date(startedAt.getTime() + ttlSeconds * 1000);
    const begun = {
      stateReason: null,
      endCause: null,
      endedAt: null,
      leaseLeftMs: null,
      savedIn: null,
      savedBytes: null,
      startedAt,
    };
    try {
      await keeper.update({ ...begun, state: 'creating', incarnationId: id, epoch: epoch + 1, expiresAt });
    } catch (error) {
      if (pooled !== undefined) await discard(ports.log, pooled);
      throw error;
    }
    ports.reached('create.recorded');
    try {
      const prepared = await (pooled === undefined ? restored(parts, source, id) : personalize(parts, pooled));
      ports.reached('create.personalized');
      await begin(parts, prepared, ttlSeconds * 1000, {});
      ports.reached('create.running');
    } catch (error) {
      const reason = error instanceof InstaVMError ? error.message : 'the microVM could not be started';
      await keeper.settle(failure(reason, ports.clock.now()));
      throw error;
    }
    const ms = ports.clock.now().getTime() - startedAt.getTime();
    ports.log.info({ ...idsOf(keeper.record), isWarm: pooled !== undefined, ms }, 'sandbox running');
  }
}

/**
 * The same sandbox in a new incarnation, with its memory, and with what was left of its lease.
 * @param isWoken because it is used, not because someone asked for it
 * @throws as `create`, and snapshot_damaged; it is suspended as before then
 */
export async function resume<Guest extends GuestLink>(
  parts: OwnerParts<Guest>,
  savedIn: FilesId,
  isWoken: boolean,
): Promise<void> {
  const { ports, keeper } = parts;
  const { ttlSeconds, leaseLeftMs, stateReason, epoch } = keeper.record;
  const startedAt = ports.clock.now();
  const facts = { sandboxId: keeper.record.id };
  await admitted(parts, () => ports.telemetry.timed('sandbox.resume', facts, bringBack));

  async function bringBack(): Promise<void> {
    const id = newIncarnationId();
    await keeper.update({ state: 'resuming', incarnationId: id, epoch: epoch + 1, stateReason: null });
    ports.reached('resume.recorded');
    try {
      await ports.states.use(savedIn, async (state) => {
        const prepared = await ports.turns.take(async () => {
          const restored = (): void => ports.reached('resume.restored');
          return personalize(parts, await prepare(ports, state, id, DEADLINES_MS.resuming, restored));
        });
        ports.reached('resume.personalized');
        // One that was suspended because its lease ran out gets a new one.
        const leaseMs = leaseLeftMs !== null && leaseLeftMs > 0 ? leaseLeftMs : ttlSeconds * 1000;
        const change = { savedIn: null, savedBytes: null, leaseLeftMs: null, startedAt, endedAt: null };
        await begin(parts, prepared, leaseMs, change, { isWoken });
        ports.reached('resume.running');
      });
    } catch (error) {
      // What failed after it ran is only the removal of files, which the next start does.
      if (keeper.record.state === 'running') return ports.log.warn({ err: error }, 'releasing a saved state');
      await keeper.settle({ state: 'suspended', stateReason });
      throw error;
    }
    ports.reached('resume.released');
    const ms = ports.clock.now().getTime() - startedAt.getTime();
    ports.log.info({ ...idsOf(keeper.record), ms }, 'sandbox resumed');
  }
}

/** The same incarnation, found running by a new daemon; it is failed when its guest does not answer. */
export async function adopt<Guest extends GuestLink>(parts: OwnerParts<Guest>, survivor: MicroVm): Promise<void> {
  const { ports, keeper, running } = parts;
  const { savedIn, expiresAt, lifecycle } = keeper.record;
  let prepared: Personalized<Guest>;
  try {
    // Its clock stood still if it was being saved.
    prepared = await personalize(parts, await attach(ports, survivor));
  } catch (error) {
    ports.log.warn({ ...idsOf(keeper.record), err: error }, 'a microVM outlived its daemon, but its guest is mute');
    return keeper.update(failure('the guest agent no longer answers', ports.clock.now()));
  }
  const until = expiresAt ?? ports.clock.now();
  await keeper.update({ state: 'running', savedIn: null, leaseLeftMs: null, expiresAt: until });
  running.begin(prepared, until, lifecycle.idleSuspendSeconds);
  if (savedIn !== null) await ports.states.release(savedIn);
}

/** With credit, room for one more microVM, and the warm pool out of the way. @throws credit_exhausted, shutting_down, quota_exceeded, capacity_unavailable */
async function admitted<Guest extends GuestLink>(
  { ports, keeper }: OwnerParts<Guest>,
  make: () => Promise<void>,
): Promise<void> {
  const { accountId, size } = keeper.record;
  await ports.spending.check(accountId);
  const quotas = await ports.quotas.of(accountId);
  const settled = ports.admission.admit(accountId, size, quotas);
  const yielded = ports.pool.yieldTo();
  try {
    await make();
  } finally {
    settled();
    yielded();
  }
}

/** Restored and personalized. @param source the template of its size when left out */
function restored<Guest extends GuestLink>(
  parts: OwnerParts<Guest>,
  source: VmSnapshot | undefined,
  id: IncarnationId,
): Promise<Personalized<Guest>> {
  const { ports, keeper } = parts;
  return ports.turns.take(async () => {
    const from =
      source ?? (await ports.telemetry.timed('template.get', {}, () => ports.templates.get(keeper.record.size)));
    const reached = (): void => ports.reached('create.restored');
    return personalize(parts, await prepare(ports, from, id, DEADLINES_MS.creating, reached));
  });
}

/** Its identity, and the network that its policy allows. @throws guest_unresponsive; the microVM is ended then */
async function personalize<Guest extends GuestLink>(
  { ports, keeper }: OwnerParts<Guest>,
  prepared: Prepared<Guest>,
): Promise<Personalized<Guest>> {
  const { id, egress } = keeper.record;
  const network = ports.egress.serve(id, egress, () => prepared.vm.connect('egress'));
  prepared.cleanup.push(() => network.close());
  try {
    const identified = ports.telemetry.timed('guest.personalize', { sandboxId: id }, () =>
      prepared.guest.personalize(identityOf(keeper.record), PERSONALIZE_DEADLINE_MS),
    );
    // The first command finds a network. Without one the sandbox is of use all the same.
    await Promise.all([identified, network.ready(NETWORK_DEADLINE_MS)]);
    return { ...prepared, network };
  } catch (error) {
    await discard(ports.log, prepared);
    throw error;
  }
}

async function begin<Guest extends GuestLink>(
  { ports, keeper, running }: OwnerParts<Guest>,
  prepared: Personalized<Guest>,
  leaseMs: number,
  change: SandboxChange,
  meaning: ChangeMeaning = {},
): Promise<void> {
  const expiresAt = new Date(ports.clock.now().getTime() + leaseMs);
  try {
    await keeper.update({ ...change, state: 'running', expiresAt }, meaning);
  } catch (error) {
    await discard(ports.log, prepared);
    throw error;
  }
  running.begin(prepared, expiresAt, keeper.record.lifecycle.idleSuspendSeconds);
}
