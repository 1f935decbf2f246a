export type { Agreement, AgreementCheck } from './inspect/agreement.ts';
export { httpCheck } from './inspect/http.ts';
export { tlsCheck } from './inspect/tls.ts';
export type { Destination, RuleId, Verdict } from './policy/verdict.ts';
