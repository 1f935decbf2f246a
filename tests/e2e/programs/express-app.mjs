/** An ordinary web application: files in ranges, events, uploads with trailers, large answers, and WebSockets that echo. */
import { createHash } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import express from 'express';
import { WebSocketServer } from 'ws';

const app = express();
app.use('/files', express.static('/root/files'));
app.get('/hello', (request, response) => response.json({ host: request.headers.host, number: request.query.number }));

/** Each event but the first when somebody says that the one before has come. */
const seen = new EventEmitter();
app.post('/events/seen', (_request, response) => {
  seen.emit('seen');
  response.end();
});
app.get('/events', async (_request, response) => {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
  for (let number = 0; number < 5; number += 1) {
    const next = once(seen, 'seen');
    response.write(`id: ${number}\ndata: event ${number}\n\n`);
    await next;
  }
  response.end();
});

app.post('/upload', async (request, response) => {
  const hash = createHash('sha256');
  let size = 0;
  for await (const chunk of request) {
    hash.update(chunk);
    size += chunk.length;
  }
  const { headers, trailers } = request;
  response.json({ size, sha256Hex: hash.digest('hex'), coding: headers['transfer-encoding'], trailers });
});

app.get('/bytes/:count', async (request, response) => {
  const chunk = Buffer.alloc(1 << 20, 'instavm!');
  let left = Number(request.params.count);
  response.setHeader('content-length', left);
  for (; left > 0; left -= chunk.length) {
    if (!response.write(chunk.subarray(0, left))) await once(response, 'drain');
  }
  response.end();
});

const server = app.listen(3000, '127.0.0.1');
new WebSocketServer({ server, path: '/echo', maxPayload: 8 << 20 }).on('connection', (socket) => {
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
});
