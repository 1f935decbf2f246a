export * from './common.ts';
export * from './credits.ts';
export * from './errors.ts';
export * from './keys.ts';
export * from './quotas.ts';
export * from './shares.ts';
export * from './v1.ts';
export * from './v2.ts';
