/** How a sandbox stops running: saved, with its memory given back, or ended for good. */
import { InstaVMError } from '@instavm/wire';
import type { GuestLink } from './guest.ts';
import { type FilesId, newFilesId } from './ids.ts';
import { absence, failure, identityOf, idsOf, type OwnerParts } from './parts.ts';
import type { EndCause } from './states.ts';
import type { VmSnapshot } from './vmm.ts';

/**
 * Saves what runs. With `continue` it runs on; with `end` its microVM is gone afterwards, and the caller releases the rest. After a
 * failure it runs on as well, or news of its loss come.
 * @throws snapshot_failed, capacity_unavailable, guest_unresponsive
 */
export async function save<Guest extends GuestLink>(
  { ports, keeper, running }: OwnerParts<Guest>,
  files: FilesId,
  then: 'continue' | 'end',
): Promise<VmSnapshot> {
  const { incarnation } = running;
  if (incarnation === undefined) throw absence(keeper.record);
  // At worst every page of it is its own.
  ports.admission.checkDisk(keeper.record.size.memoryMib);
  const flushed = (): void => ports.reached(then === 'end' ? 'suspend.flushed' : 'snapshot.flushed');
  const discard = (): void => {
    const warn = (err: unknown): void =>
      ports.log.warn({ ...idsOf(keeper.record), err }, 'removing what was saved too late');
    ports.states.release(files).catch(warn);
  };
  return incarnation.save(ports.states.directoryOf(files), then, identityOf(keeper.record), flushed, discard);
}

/** @throws as `save`; it runs on then */
export async function suspend<Guest extends GuestLink>(parts: OwnerParts<Guest>, reason: string): Promise<void> {
  const { ports, keeper, running } = parts;
  const { expiresAt, lifecycle } = keeper.record;
  const startedAt = ports.clock.now();
  const files = newFilesId();
  const leaseLeftMs = Math.max(0, (expiresAt?.getTime() ?? 0) - startedAt.getTime());
  // The lease stays in the record: if the daemon dies half-way, the sandbox may run on.
  await keeper.update({ state: 'suspending', savedIn: files, leaseLeftMs });
  ports.reached('suspend.recorded');
  let saved: VmSnapshot;
  try {
    saved = await save(parts, files, 'end');
  } catch (error) {
    // When it was lost, the news of that are next in the queue.
    await keeper.settle({ state: 'running', savedIn: null, leaseLeftMs: null });
    running.watchIdleness(lifecycle.idleSuspendSeconds);
    await ports.states.release(files);
    throw error;
  }
  ports.reached('suspend.saved');
  try {
    await running.end()?.release();
  } catch (error) {
    ports.log.warn({ ...idsOf(keeper.record), err: error }, 'releasing a suspended microVM');
  }
  ports.reached('suspend.released');
  const endedAt = ports.clock.now();
  await keeper.settle({
    state: 'suspended',
    stateReason: reason,
    expiresAt: null,
    endedAt,
    savedBytes: saved.storedBytes,
  });
  ports.reached('suspend.suspended');
  const ms = endedAt.getTime() - startedAt.getTime();
  ports.log.info({ ...idsOf(keeper.record), storedBytes: saved.storedBytes, ms }, 'sandbox suspended');
}

/** @throws teardown_incomplete; it is failed then, and may be ended again */
export async function end<Guest extends GuestLink>(
  { ports, keeper, running }: OwnerParts<Guest>,
  reason: string,
  endCause: EndCause,
): Promise<void> {
  const { savedIn } = keeper.record;
  await keeper.update({ state: 'stopping', stateReason: reason, endCause });
  ports.reached('end.recorded');
  try {
    await running.end()?.release();
  } catch (cause) {
    const what = 'something of it could not be removed';
    await keeper.settle({ ...failure(what, ports.clock.now()), endCause });
    throw new InstaVMError('teardown_incomplete', 'the sandbox ended, but something of it is still there', { cause });
  }
  ports.reached('end.released');
  const endedAt = ports.clock.now();
  await keeper.settle({
    state: 'stopped',
    endedAt,
    expiresAt: null,
    savedIn: null,
    savedBytes: null,
    leaseLeftMs: null,
  });
  ports.reached('end.stopped');
  if (savedIn !== null) await ports.states.release(savedIn);
}
