/** Losses over the real Firecracker, in a machine whose disk may be filled. */
import { tmpdir } from 'node:os';
import { firecracker } from '../life/firecracker.ts';
import { describeLosses } from '../life/loss.ts';

describeLosses(firecracker, { fillable: () => ({ place: tmpdir() }), muchMib: 64 });
