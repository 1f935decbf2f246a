/** Certificates for host names that are not under the preview domain, as the owner of custom domains asks for them. */
export type DomainCertificates = {
  /**
   * Orders a certificate and installs it; resolves when TLS handshakes for the name get it. A second call for the same name joins the first.
   * @param domain in lower case, internationalized names as A-labels; not the preview domain or a name below or above it
   * @throws InstaVMError: certificate_failed, with the certificate authority's own reason; invalid_argument when the name cannot have a certificate
   */
  issue(domain: string, signal: AbortSignal): Promise<void>;
  /** What is on disk for the name. */
  state(domain: string): Promise<DomainCertificateState>;
  /** Deletes the certificate and its key, and stops its renewal. */
  forget(domain: string): Promise<void>;
};

export type DomainCertificateState = {
  readonly certPresent: boolean;
  readonly keyPresent: boolean;
  readonly expiresAt: Date | null;
};
