/** Branded ids: a SandboxId cannot stand where a TemplateKey belongs. Made here and parsed at the edges only. */

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

/** UUID. `session_id` on the wire; stable for the sandbox's life. */
export type SandboxId = Branded<'SandboxId'>;
/** `vm_` and 20 base-32 characters; never parses as a UUID. `vm_id` on the wire; one run of a microVM. */
export type IncarnationId = Branded<'IncarnationId'>;
/** `acct_…` */
export type AccountId = Branded<'AccountId'>;
/** `snap_` and 20 base-32 characters. */
export type SnapshotId = Branded<'SnapshotId'>;
/** Name of a directory of saved state; several records may share one. Never shown. */
export type FilesId = Branded<'FilesId'>;
/** `shr` and 20 base-32 characters: a DNS label, which the address of the share begins with. */
export type ShareId = Branded<'ShareId'>;
/** `lnk` and 16 base-32 characters: one link to a private share, and what it became. */
export type LinkId = Branded<'LinkId'>;
/** Hex digest over everything a template is made from; equal keys are interchangeable. */
export type TemplateKey = Branded<'TemplateKey'>;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const SNAPSHOT = /^snap_[a-z2-7]{20}$/;
const SHARE = /^shr[a-z2-7]{20}$/;
const LINK = /^lnk[a-z2-7]{16}$/;
const INCARNATION = /^vm_[a-z2-7]{20}$/;

/** @returns undefined when the text is not the canonical form of a sandbox id */
export function parseSandboxId(text: string): SandboxId | undefined {
  const lower = text.toLowerCase();
  return UUID.test(lower) ? (lower as SandboxId) : undefined;
}

/** @returns undefined when the text is not an incarnation id */
export function parseIncarnationId(text: string): IncarnationId | undefined {
  return INCARNATION.test(text) ? (text as IncarnationId) : undefined;
}

/** @returns undefined when the text is not a snapshot id */
export function parseSnapshotId(text: string): SnapshotId | undefined {
  return SNAPSHOT.test(text) ? (text as SnapshotId) : undefined;
}

/** @returns undefined when the text is not a share id */
export function parseShareId(text: string): ShareId | undefined {
  return SHARE.test(text) ? (text as ShareId) : undefined;
}

/** @returns undefined when the text is not the id of a link */
export function parseLinkId(text: string): LinkId | undefined {
  return LINK.test(text) ? (text as LinkId) : undefined;
}

export const newSandboxId = (): SandboxId => crypto.randomUUID() as SandboxId;

const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567';
const base32 = (length: number): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => BASE32[byte & 31]).join('');

export const newIncarnationId = (): IncarnationId => `vm_${base32(20)}` as IncarnationId;
export const newAccountId = (): AccountId => `acct_${base32(20)}` as AccountId;
export const newSnapshotId = (): SnapshotId => `snap_${base32(20)}` as SnapshotId;
export const newFilesId = (): FilesId => `files_${base32(20)}` as FilesId;
export const newShareId = (): ShareId => `shr${base32(20)}` as ShareId;
export const newLinkId = (): LinkId => `lnk${base32(16)}` as LinkId;
