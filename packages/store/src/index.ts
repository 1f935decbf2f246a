export { type Account, Accounts } from './accounts.ts';
export { type Database, openDatabase } from './database.ts';
export { domainRecords } from './domains.ts';
export { EGRESS_ROWS_KEPT, egressLog } from './egress-log.ts';
export { takeExclusiveLock } from './exclusive-lock.ts';
export { sandboxRecords } from './sandboxes.ts';
export { shareRecords } from './shares.ts';
export { snapshotRecords } from './snapshots.ts';
