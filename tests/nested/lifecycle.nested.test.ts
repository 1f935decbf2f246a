/** Asleep and awake over the real Firecracker. */
import { firecracker } from '../life/firecracker.ts';
import { describeSleep } from '../life/sleep.ts';

describeSleep(firecracker, { suspensions: 10, diskMib: 1 });
