export type { DomainCertificateState, DomainCertificates } from './acme/domain-certificates.ts';
export { domainNameProblem } from './acme/names.ts';
export type { AcmeOptions } from './acme/options.ts';
export type { CertificateFiles } from './certificates.ts';
export { isPreviewDomain } from './hosts.ts';
export { createLocalCa, type LocalCa } from './local-ca.ts';
export { type PreviewLimits, PreviewProxy, type PreviewProxyOptions } from './proxy.ts';
export type { PreviewTarget, PreviewTargets } from './targets.ts';
