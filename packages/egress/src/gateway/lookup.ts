/** A guest's look-ups (RFC 8484 over the egress channel): whether the name exists, and records of names that a rule allows. Nobody is asked about any other. */
import { decode, encode, type Packet } from 'dns-packet';
import { normalizeName } from '../policy/names.ts';
import type { LookupScope } from '../policy/policy.ts';
import { RECORD_TYPES, type RecordType, type Resolver, rcodeOf } from './resolver.ts';

/** Of UDP without EDNS (RFC 1035 §2.3.4); the guest asks nothing longer. */
export const MAX_QUERY_BYTES = 512;
/** Answers are made again for every question; a policy that changes acts at once. */
const TTL_SECONDS = 5;
const MAX_RECORDS = 64;
/** A length has two bytes (RFC 1035 §4.2.2). */
const MAX_MESSAGE_BYTES = 65_535;
/** In the flags; 0 is a query. */
const OPCODE = 0x7800;
const SERVER_FAILURE = 2;
const NAME_ERROR = 3;
const REFUSED = 5;
const NOT_IMPLEMENTED = 4;

export type LookupAnswer = {
  readonly message: Buffer;
  /** Set when no rule allows the name. */
  readonly denied?: { readonly name: string };
};

type Question = { readonly name: string; readonly type: string; readonly id: number };

/** @returns undefined when the bytes are no query with one question. Never rejects. */
export async function lookUp(
  query: Buffer,
  scopeOf: (name: string) => LookupScope,
  resolver: Resolver,
): Promise<LookupAnswer | undefined> {
  const question = parse(query);
  if (question === undefined) return undefined;
  const name = normalizeName(question.name);
  // What is no host name cannot be allowed, and may carry anything.
  const scope = name === undefined ? 'none' : scopeOf(name);
  if (name === undefined || scope === 'none')
    return { message: answer(question, REFUSED, []), denied: { name: name ?? 'a name that no host can have' } };
  if (question.type === 'A' || question.type === 'AAAA') {
    const { ipv4, ipv6, absence } = await resolver.addresses(name);
    const found = question.type === 'A' ? ipv4 : ipv6;
    const isThere = ipv4.length + ipv6.length > 0 || absence === 'no_data';
    return { message: answer(question, isThere ? 0 : absence === 'not_found' ? NAME_ERROR : SERVER_FAILURE, found) };
  }
  if (scope === 'addresses') return { message: answer(question, REFUSED, []), denied: { name } };
  if (!isRecordType(question.type)) return { message: answer(question, NOT_IMPLEMENTED, []) };
  try {
    return { message: answer(question, 0, await resolver.records(name, question.type)) };
  } catch (error) {
    return { message: answer(question, rcodeOf(error), []) };
  }
}

const isRecordType = (type: string): type is RecordType => RECORD_TYPES.some((known) => known === type);

function parse(query: Buffer): Question | undefined {
  if (query.length > MAX_QUERY_BYTES) return undefined;
  let packet: Packet;
  try {
    packet = decode(query);
  } catch {
    return undefined;
  }
  const [question, ...others] = packet.questions ?? [];
  if (packet.type !== 'query' || (packet.flags ?? 0) & OPCODE || question === undefined || others.length > 0)
    return undefined;
  if (question.class !== undefined && question.class !== 'IN') return undefined;
  return { name: question.name, type: question.type, id: packet.id ?? 0 };
}

function answer(question: Question, rcode: number, data: readonly unknown[]): Buffer {
  try {
    const message = encoded(question, rcode, data);
    // A name server can send what dns-packet cannot write down so that it can be read.
    if (message.length <= MAX_MESSAGE_BYTES && decode(message)) return message;
  } catch {
    // As if nobody could say.
  }
  return encoded(question, SERVER_FAILURE, []);
}

function encoded({ id, name, type }: Question, rcode: number, data: readonly unknown[]): Buffer {
  const answers = data
    .slice(0, MAX_RECORDS)
    .map((each) => ({ type, name, ttl: TTL_SECONDS, class: 'IN', data: each }) as never);
  // RFC 1035 §4.1.1: recursion desired and available; dns-packet keeps the RCODE in the flags.
  return encode({ type: 'response', id, flags: 0x0180 | rcode, questions: [{ type: type as never, name }], answers });
}
