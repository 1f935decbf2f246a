/** For tests of routes over a store alone: the trail of that store. */
import { systemClock } from '@instavm/core';
import { Accounts, ApiKeys, AuditWriter, auditTrail, type Database, sandboxRecords } from '@instavm/store';
import { Audit, News } from '../src/audit.ts';

export function auditOf(database: Database): Audit {
  const trail = auditTrail(database, new AuditWriter());
  const readers = {
    accounts: new Accounts(database),
    keys: new ApiKeys(database),
    sandboxes: sandboxRecords(database),
  };
  const log = { info: () => {}, warn: () => {} };
  return new Audit({ trail, news: new News(), ...readers, clock: systemClock, log });
}
