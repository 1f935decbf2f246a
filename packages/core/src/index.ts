export * from './guest.ts';
export * from './ids.ts';
export * from './vmm.ts';
