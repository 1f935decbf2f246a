/** Server-sent events, those of this API: each one line of JSON. */
import type { IncomingMessage } from 'node:http';

/** The connection is closed when the iteration is ended. A stream that breaks off is an error, never an early end. */
export async function* events<T>(body: IncomingMessage): AsyncGenerator<T> {
  let rest = '';
  try {
    body.setEncoding('utf8');
    for await (const text of body as AsyncIterable<string>) {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) if (line.startsWith('data: ')) yield JSON.parse(line.slice('data: '.length)) as T;
    }
  } finally {
    body.destroy();
  }
}
