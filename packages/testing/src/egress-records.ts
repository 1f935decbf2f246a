/** A connection that was allowed and has ended, as guests make them. */
import type { EgressEntry, EgressRecord } from '@instavm/core';

export const egressRecord = (fields: Partial<EgressRecord> = {}): EgressRecord => ({
  at: new Date('2026-01-01T00:00:00Z'),
  kind: 'connect',
  host: 'example.com',
  port: 443,
  address: '192.0.2.1',
  allowed: true,
  rule: 'allow_https',
  outcome: 'closed',
  reason: null,
  bytesSent: 1,
  bytesReceived: 2,
  durationMs: 3,
  ...fields,
});

export const egressEntry = ({ repeated = 1, ...fields }: Partial<EgressEntry> = {}): EgressEntry => ({
  ...egressRecord(fields),
  repeated,
});
