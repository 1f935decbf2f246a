export { type Account, Accounts } from './accounts.ts';
export { type Database, openDatabase } from './database.ts';
export { takeExclusiveLock } from './exclusive-lock.ts';
export { sandboxRecords } from './sandboxes.ts';
export { snapshotRecords } from './snapshots.ts';
