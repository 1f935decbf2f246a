export type { Account } from './account-row.ts';
export { Accounts } from './accounts.ts';
export { type ApiKey, ApiKeys, type KeyChange, MAX_KEYS, type ShownKey, type WantedKey } from './api-keys.ts';
export { type Database, openDatabase } from './database.ts';
export { EGRESS_ROWS_KEPT, egressLog } from './egress-log.ts';
export { takeExclusiveLock } from './exclusive-lock.ts';
export { sandboxRecords } from './sandboxes.ts';
export { shareRecords } from './shares.ts';
export { snapshotRecords } from './snapshots.ts';
