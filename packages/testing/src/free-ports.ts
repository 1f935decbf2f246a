/** Ports for programs that have to be told theirs, and for tests that need the same one on several addresses. */
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';

/**
 * Below what the kernel gives to whoever asks for any port (`ip_local_port_range`), so that nobody is given one of these between now and when it is
 * listened on. Each of vitest's workers has its own.
 */
const FIRST_PORT = 10_000;
const WORKERS = 40;
const PORTS_EACH = 500;

let givenLast = randomInt(PORTS_EACH);

/** For programs that have to be told theirs. */
export async function freePorts(count: number): Promise<number[]> {
  const first = FIRST_PORT + (Number(process.env.VITEST_POOL_ID ?? 0) % WORKERS) * PORTS_EACH;
  const ports: number[] = [];
  while (ports.length < count) {
    givenLast = (givenLast + 1) % PORTS_EACH;
    if (await isFree(first + givenLast)) ports.push(first + givenLast);
  }
  return ports;
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, '127.0.0.1');
  const isFree = await once(server, 'listening').then(
    () => true,
    () => false,
  );
  if (isFree) await once(server.close(), 'close');
  return isFree;
}
