/** A snapshot that another backend left: seen, so that nobody takes it for damaged, and never restored. */
import type { TemplateKey, VmSnapshot } from '@instavm/core';
import { z } from 'zod';
import { parseJson } from './parse-json.ts';

/** What the manifests of all backends have in common; QEMU's came first, and does not say whose it is. */
const Manifest = z.object({
  backend: z.string().default('qemu'),
  accelerator: z.enum(['kvm', 'tcg', 'none']).default('kvm'),
  templateKey: z.string(),
  memoryMib: z.number().int().positive(),
  vcpus: z.number().int().positive(),
  storedBytes: z.number().int().default(0),
});

/** @param text a manifest. @returns undefined when it is this backend's own, or none at all */
export function foreignSnapshot(text: string, ownBackend: string, directory: string): VmSnapshot | undefined {
  const manifest = parseJson(Manifest, text);
  if (manifest === undefined) return undefined;
  const { backend, accelerator, templateKey, memoryMib, vcpus, storedBytes } = manifest;
  if (backend === ownBackend) return undefined;
  const size = { memoryMib, vcpus };
  const template = { templateKey: templateKey as TemplateKey, templateBuildId: undefined };
  return { directory, ...template, size, backend, accelerator, storedBytes };
}
