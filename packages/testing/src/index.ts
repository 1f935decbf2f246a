export { egressEntry, egressRecord } from './egress-records.ts';
export { freePorts } from './free-ports.ts';
export { assertNothingLeft, type Leftovers, leftoversOf } from './leftovers.ts';
export { type SmallDisk, smallDisk } from './small-disk.ts';
export { inheritedEnvironment, startTestDaemon, type TestDaemon, type TestDaemonOptions } from './test-daemon.ts';
