import { expect, test } from 'vitest';
import { compressedPayload } from '../src/kernel-elf.ts';

const LZ4_MAGIC = Buffer.from([0x02, 0x21, 0x4c, 0x18]);

/** A kernel image with three setup sectors and the payload 40 bytes behind them. */
function image(payload: Buffer): Buffer {
  const bytes = Buffer.alloc(4 * 512 + 40 + payload.length + 100);
  bytes.writeUInt8(3, 0x1f1);
  bytes.writeUInt32LE(40, 0x248);
  bytes.writeUInt32LE(payload.length, 0x24c);
  payload.copy(bytes, 4 * 512 + 40);
  return bytes;
}

test('the payload is cut out where the header says, without the size behind it', () => {
  const frame = Buffer.concat([LZ4_MAGIC, Buffer.from('compressed')]);
  expect(compressedPayload(image(Buffer.concat([frame, Buffer.alloc(4, 1)])))).toEqual(frame);
});

test('a payload of another compression is refused', () => {
  expect(() => compressedPayload(image(Buffer.from('\x1f\x8b gzip')))).toThrow('no LZ4 payload');
});
