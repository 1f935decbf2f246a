/** Server-sent events, those of this API: each one line of JSON. */
import type { IncomingMessage } from 'node:http';
import { InstaVMError } from './errors.ts';

/** The connection is closed when the iteration is ended. @throws InstaVMError `connection_lost` when the stream breaks off */
export async function* events<T>(body: IncomingMessage): AsyncGenerator<T> {
  let rest = '';
  try {
    body.setEncoding('utf8');
    for await (const text of body as AsyncIterable<string>) {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) if (line.startsWith('data: ')) yield JSON.parse(line.slice('data: '.length)) as T;
    }
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ECONNRESET') throw cause;
    throw new InstaVMError('connection_lost', 'the stream of events broke off', { retryable: 'yes', cause });
  } finally {
    body.destroy();
  }
}
