/** One way to show a certificate authority that a name is ours (RFC 8555 §8, RFC 8737). */
export type ChallengeType = 'tls-alpn-01' | 'http-01' | 'dns-01';

export type Proof = {
  readonly domain: string;
  readonly token: string;
  /** The key authorization; of dns-01, its digest. */
  readonly value: string;
};

export type Solver = {
  readonly type: ChallengeType;
  /**
   * Resolves when the authority may look.
   * @returns takes the proof back; never fails
   */
  present(proof: Proof, signal: AbortSignal): Promise<() => Promise<void>>;
};
