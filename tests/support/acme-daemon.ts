/**
 * An `AcmeDaemon` for tests in Python. Says where it is in one line of JSON, or why there is none; then takes one TXT record a line, `NAME VALUE`, and
 * answers each with `ok`. Ends, having looked for leaks, when its input does.
 */
import { createInterface } from 'node:readline';
import { defaultCacheDirectory } from '@instavm/images';
import { AcmeDaemon } from '@instavm/testing/acme-daemon';
import { locateAcmeServers } from '../../scripts/steps/acme-servers.ts';

const servers = await locateAcmeServers(defaultCacheDirectory(process.env));
if ('missing' in servers) {
  console.log(JSON.stringify(servers));
} else {
  process.env.INSTAVM_TEST_ACME_SERVERS = JSON.stringify(servers);
  const stand = await AcmeDaemon.start();
  const { baseUrl: base_url, apiKey: api_key } = stand.daemon;
  console.log(JSON.stringify({ base_url, api_key, preview_port: stand.previewPort, root: stand.root }));
  for await (const line of createInterface({ input: process.stdin })) {
    const [name = '', value = ''] = line.split(' ');
    await stand.pebble.addTxt(name, value);
    console.log('ok');
  }
  await stand.stop();
}
