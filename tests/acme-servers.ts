/** Tells the tests of ACME where the servers are that they run against, or why there are none. */
import { defaultCacheDirectory } from '@instavm/images';
import { locateAcmeServers } from '../scripts/steps/acme-servers.ts';

export default async function setup(): Promise<void> {
  process.env.INSTAVM_TEST_ACME_SERVERS = JSON.stringify(await locateAcmeServers(defaultCacheDirectory(process.env)));
}
