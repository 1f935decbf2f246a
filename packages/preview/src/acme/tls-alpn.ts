/** TLS-ALPN-01 (RFC 8737): the certificates that prove a name to an authority that asks for the protocol `acme-tls/1`. */
import { createSecureContext, type SecureContext } from 'node:tls';
import { type Authorization, crypto as acmeCrypto } from 'acme-client';
import type { Solver } from './solver.ts';

export class TlsAlpnSolver implements Solver {
  readonly type = 'tls-alpn-01';
  readonly #proofs = new Map<string, SecureContext>();

  /** What to show for a name of which an order is under way. */
  proofFor(domain: string): SecureContext | undefined {
    return this.#proofs.get(domain);
  }

  async present({ domain, value }: { domain: string; value: string }): Promise<() => Promise<void>> {
    const named = { identifier: { type: 'dns', value: domain } } as Authorization;
    const [key, cert] = await acmeCrypto.createAlpnCertificate(
      named,
      value,
      await acmeCrypto.createPrivateEcdsaKey('P-256'),
    );
    this.#proofs.set(domain, createSecureContext({ key, cert, minVersion: 'TLSv1.2' }));
    return async () => {
      this.#proofs.delete(domain);
    };
  }
}
