export type { Destination, RuleId, Verdict } from './policy/verdict.ts';
