/** The life of a sandbox over QEMU: what is told of Firecracker in tests/nested. */
import { describe } from 'vitest';
import { describeHandover } from '../life/handover.ts';
import { qemu } from '../life/qemu.ts';
import { describeSleep } from '../life/sleep.ts';

describe('asleep and awake', () => describeSleep(qemu, { suspensions: 20, diskMib: 200 }));
describe('from daemon to daemon', () => describeHandover(qemu));
