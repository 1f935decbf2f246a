/**
 * Names to records, asked by the daemon itself: what a guest says of a name counts for nothing. c-ares does the asking (retries, TCP after a
 * truncated answer, several servers); `/etc/hosts` and search domains have no part in it.
 */
import type { CaaRecord } from 'node:dns';
import { NODATA, NOTFOUND, REFUSED, Resolver as SystemResolver } from 'node:dns/promises';

/**
 * Two attempts fit into the guest's own 5 s. c-ares would double the second one, and Node looks at its clock once a second, so that a round
 * number may become one more.
 */
const ATTEMPT_MS = 1_800;
const ATTEMPTS = 2;
/** Of one name; more would only be tried one after the other. */
const MAX_ADDRESSES = 16;

export type Addresses = {
  readonly ipv4: readonly string[];
  readonly ipv6: readonly string[];
  /** `not_found`: there is no such name. `failed`: nobody could say. Only meaningful without addresses. */
  readonly absence: 'no_data' | 'not_found' | 'failed';
};

export class Resolver {
  readonly #system = new SystemResolver({ timeout: ATTEMPT_MS, maxTimeout: ATTEMPT_MS, tries: ATTEMPTS });

  /** @param servers `address[:port]`; those of the system when empty */
  constructor(servers: readonly string[]) {
    if (servers.length > 0) this.#system.setServers(servers);
  }

  /** Both families. Never rejects; takes at most a few seconds. */
  async addresses(name: string): Promise<Addresses> {
    const [ipv4, ipv6] = await Promise.all([
      settled(this.#system.resolve4(name)),
      settled(this.#system.resolve6(name)),
    ]);
    const codes = [ipv4.code, ipv6.code];
    const absence = codes.includes(NOTFOUND)
      ? 'not_found'
      : codes.every((code) => code === NODATA)
        ? 'no_data'
        : 'failed';
    return { ipv4: ipv4.addresses.slice(0, MAX_ADDRESSES), ipv6: ipv6.addresses.slice(0, MAX_ADDRESSES), absence };
  }

  /** Records of one of {@link RECORD_TYPES}, as dns-packet takes them. @throws NodeJS.ErrnoException of c-ares */
  async records(name: string, type: RecordType): Promise<unknown[]> {
    switch (type) {
      case 'TXT':
        return this.#system.resolveTxt(name);
      case 'MX':
        return (await this.#system.resolveMx(name)).map(({ exchange, priority }) => ({
          exchange,
          preference: priority,
        }));
      case 'SRV':
        return (await this.#system.resolveSrv(name)).map(({ name: target, ...rest }) => ({ ...rest, target }));
      case 'CNAME':
        return this.#system.resolveCname(name);
      case 'NS':
        return this.#system.resolveNs(name);
      case 'CAA':
        return (await this.#system.resolveCaa(name)).map(caaOf);
      case 'SOA': {
        const { nsname, hostmaster, serial, refresh, retry, expire, minttl } = await this.#system.resolveSoa(name);
        return [{ mname: nsname, rname: hostmaster, serial, refresh, retry, expire, minimum: minttl }];
      }
    }
  }
}

export const RECORD_TYPES = ['TXT', 'MX', 'SRV', 'CNAME', 'NS', 'CAA', 'SOA'] as const;
export type RecordType = (typeof RECORD_TYPES)[number];

/** The RCODE (RFC 1035 §4.1.1) that tells a program what became of its look-up. */
export function rcodeOf(error: unknown): number {
  const { code } = error as NodeJS.ErrnoException;
  if (code === NODATA) return 0;
  if (code === NOTFOUND) return 3;
  return code === REFUSED ? 5 : 2;
}

async function settled(look: Promise<string[]>): Promise<{ addresses: string[]; code?: string | undefined }> {
  try {
    return { addresses: await look };
  } catch (error) {
    return { addresses: [], code: (error as NodeJS.ErrnoException).code };
  }
}

/** Node gives the tag as the name of a property. */
function caaOf({ critical, ...rest }: CaaRecord): { flags: number; tag: string; value: string } {
  const [tag = '', value = ''] =
    Object.entries(rest).find(([key, text]) => key !== 'type' && typeof text === 'string') ?? [];
  return { flags: critical, tag, value: String(value) };
}
