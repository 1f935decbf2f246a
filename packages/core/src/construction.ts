/** How a microVM with an attached guest is made, for a sandbox or for the warm pool. */
import { InstaVMError } from '@instavm/wire';
import { CleanupStack } from './cleanup.ts';
import type { Clock } from './clock.ts';
import { withDeadline } from './deadline.ts';
import type { EgressGateway, EgressLink } from './egress.ts';
import type { GuestConnector, GuestLink } from './guest.ts';
import type { IncarnationId } from './ids.ts';
import type { LifecycleLog } from './log.ts';
import { DEADLINES_MS } from './states.ts';
import type { Telemetry } from './telemetry.ts';
import type { MicroVm, Template, Vmm, VmSnapshot } from './vmm.ts';

/**
 * SYNC and the first answer of a clone: tens of milliseconds; a busy emulating host may need seconds. A guest that has not yet seen an
 * earlier connection end answers only the next attempt (spec/agent.proto).
 */
const ATTACH_DEADLINES_MS = [5_000, 10_000, 20_000] as const;

export type ConstructionPorts<Guest extends GuestLink> = {
  readonly vmm: Vmm;
  readonly connector: GuestConnector<Guest>;
  readonly egress: EgressGateway;
  readonly clock: Clock;
  readonly log: LifecycleLog;
  readonly telemetry: Telemetry;
};

/** Runs, and answers; whose it is the guest does not know yet. */
export type Prepared<Guest extends GuestLink> = {
  readonly id: IncarnationId;
  readonly vm: MicroVm;
  readonly guest: Guest;
  /** Ends it, last first. */
  readonly cleanup: CleanupStack;
};

/** One that knows whose it is, and whose network is that sandbox's. */
export type Personalized<Guest extends GuestLink> = Prepared<Guest> & { readonly network: EgressLink };

/**
 * @param restored called between the microVM and its guest
 * @throws boot_failed, capacity_unavailable, snapshot_incompatible, guest_unresponsive; nothing is left then
 */
export function prepare<Guest extends GuestLink>(
  ports: ConstructionPorts<Guest>,
  source: Template | VmSnapshot,
  id: IncarnationId,
  deadlineMs: number = DEADLINES_MS.creating,
  restored: () => void = () => {},
): Promise<Prepared<Guest>> {
  const make = async (): Promise<Prepared<Guest>> => {
    const kind = 'storedBytes' in source ? 'snapshot' : 'template';
    const vm = await ports.telemetry.timed('vmm.restore', { source: kind }, () => ports.vmm.restore(source, id));
    restored();
    return attach(ports, vm);
  };
  const tooLate = (): Error => new InstaVMError('boot_failed', 'the microVM did not start in time');
  return withDeadline(ports.clock, deadlineMs, make(), tooLate, (late) => void discard(ports.log, late));
}

/** @throws guest_unresponsive; the microVM is ended then */
export async function attach<Guest extends GuestLink>(
  { connector, log, telemetry }: ConstructionPorts<Guest>,
  vm: MicroVm,
): Promise<Prepared<Guest>> {
  const cleanup = new CleanupStack();
  cleanup.push(() => vm.kill());
  try {
    const guest = await telemetry.timed('guest.attach', {}, () => connectGuest(connector, vm));
    cleanup.push(() => guest.close());
    return { id: vm.incarnationId, vm, guest, cleanup };
  } catch (error) {
    await runLogged(log, cleanup);
    throw error;
  }
}

/** @returns a guest that has answered. @throws guest_unresponsive, guest_lost */
export async function connectGuest<Guest extends GuestLink>(
  connector: GuestConnector<Guest>,
  vm: MicroVm,
): Promise<Guest> {
  let failure: unknown;
  for (const deadlineMs of ATTACH_DEADLINES_MS) {
    let guest: Guest | undefined;
    try {
      guest = await connector.attach(await vm.connect('control'), deadlineMs);
      await guest.ping(deadlineMs);
      return guest;
    } catch (error) {
      guest?.close();
      failure = error;
    }
  }
  throw failure;
}

/** Ends what nobody will use. Never rejects. */
export const discard = <Guest extends GuestLink>(log: LifecycleLog, { cleanup }: Prepared<Guest>): Promise<void> =>
  runLogged(log, cleanup);

const runLogged = (log: LifecycleLog, cleanup: CleanupStack): Promise<void> =>
  cleanup.run().catch((error: unknown) => log.warn({ err: error }, 'clean-up after a failed start'));
