/** From daemon to daemon over the real Firecracker. */
import { firecracker } from '../life/firecracker.ts';
import { describeHandover } from '../life/handover.ts';

describeHandover(firecracker);
