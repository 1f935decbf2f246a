/** Migration streams as QEMU writes them, made up. */
import { PAGE_BYTES } from '../ram-stream.ts';

export const BIOS_PAGES = 2;

export type Page = { readonly page: number; readonly fill: number };

export const u64 = (value: number): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
};
const name = (text: string): Buffer => Buffer.from([text.length, ...Buffer.from(text)]);
const section = (kind: number): Buffer => Buffer.from([kind, 0, 0, 0, 2]);
const FOOTER = Buffer.from([0x7e, 0, 0, 0, 2]);
export const VERSION = Buffer.from([0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 3]);
export const PREAMBLE = Buffer.concat([VERSION, Buffer.from([7, 0, 0, 0, 9, ...Buffer.from('microvm-1')])]);
export const devices = (text: string): Buffer => Buffer.from([4, ...Buffer.from(text), 0]);

/** A template's state as QEMU writes it: names only where the block changes, zero pages as one byte, the memory not in it. */
export function templateState(memory: number, parts: readonly (readonly Page[])[], block = 'bios'): Buffer {
  const bytes: Buffer[] = [
    PREAMBLE,
    Buffer.concat([section(1), name('ram'), Buffer.from([0, 0, 0, 0, 0, 0, 0, 4])]),
    u64(memory + BIOS_PAGES * PAGE_BYTES + 4),
    ...[name('ram'), u64(memory), u64(0), name('bios'), u64(BIOS_PAGES * PAGE_BYTES), u64(0xfff00000)],
    ...[u64(0x10), FOOTER],
  ];
  let isNamed = false;
  for (const [index, pages] of parts.entries()) {
    bytes.push(section(index === parts.length - 1 ? 3 : 2));
    for (const { page, fill } of pages) {
      bytes.push(u64(((page % BIOS_PAGES) * PAGE_BYTES) | (fill === 0 ? 0x02 : 0x08) | (isNamed ? 0x20 : 0)));
      if (!isNamed) bytes.push(name(block));
      bytes.push(fill === 0 ? Buffer.of(0) : Buffer.alloc(PAGE_BYTES, fill));
      isNamed = true;
    }
    bytes.push(u64(0x10), FOOTER);
  }
  return Buffer.concat([...bytes, devices('of the template')]);
}
