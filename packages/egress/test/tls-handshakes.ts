/** TLS for the tests: handshakes of Node's own OpenSSL over pipes in memory, and ClientHellos built by hand. */
import { createSign, generateKeyPairSync } from 'node:crypto';
import { Duplex } from 'node:stream';

function der(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const length = content.length < 128 ? [content.length] : [0x82, content.length >> 8, content.length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...length]), content]);
}

/** A certificate that signs itself and names nobody. */
export function selfSigned(): { key: string; cert: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const ecdsaWithSha256 = der(0x30, der(0x06, Buffer.from('2a8648ce3d040302', 'hex')));
  const time = (text: string): Buffer => der(0x17, Buffer.from(text));
  const nobody = der(0x30);
  const tbs = der(
    0x30,
    der(0x02, Buffer.from([1])),
    ecdsaWithSha256,
    nobody,
    der(0x30, time('200101000000Z'), time('490101000000Z')),
    nobody,
    publicKey.export({ type: 'spki', format: 'der' }),
  );
  const signature = createSign('sha256').update(tbs).sign(privateKey);
  const certificate = der(0x30, tbs, ecdsaWithSha256, der(0x03, Buffer.from([0]), signature));
  const cert = `-----BEGIN CERTIFICATE-----\n${certificate.toString('base64')}\n-----END CERTIFICATE-----\n`;
  return { key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), cert };
}

/** One end of a connection; what is written to it goes to `onWrite`. */
export function pipeEnd(onWrite: (chunk: Buffer) => void): Duplex {
  return new Duplex({
    read: () => {},
    write: (chunk: Buffer, _encoding, done) => {
      onWrite(chunk);
      done();
    },
  });
}

function vector(lengthWidth: 1 | 2 | 3, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const length = Buffer.alloc(lengthWidth);
  length.writeUIntBE(content.length, 0, lengthWidth);
  return Buffer.concat([length, content]);
}

export function extension(type: number, ...content: Buffer[]): Buffer {
  return Buffer.concat([Buffer.from([type >> 8, type & 0xff]), vector(2, ...content)]);
}

/** One entry of the server_name list. */
export function nameEntry(name: string, type = 0): Buffer {
  return Buffer.concat([Buffer.from([type]), vector(2, Buffer.from(name, 'latin1'))]);
}

export function sni(...names: string[]): Buffer {
  return extension(0, vector(2, ...names.map((name) => nameEntry(name))));
}

export const GREASE_ECH = extension(0xfe0d, Buffer.alloc(80, 7));

/** The handshake message. */
export function helloMessage(extensions: readonly Buffer[] | undefined, tail = Buffer.alloc(0)): Buffer {
  const body = Buffer.concat([
    Buffer.from([3, 3]),
    Buffer.alloc(32, 9),
    vector(1, Buffer.alloc(32, 8)),
    vector(2, Buffer.from([0x13, 1])),
    vector(1, Buffer.from([0])),
    extensions ? vector(2, ...extensions) : Buffer.alloc(0),
    tail,
  ]);
  return Buffer.concat([Buffer.from([1]), vector(3, body)]);
}

/** @param fragmentBytes content of each record */
export function records(message: Buffer, fragmentBytes = 16_384, type = 0x16): Buffer {
  const count = Math.ceil(message.length / fragmentBytes);
  return Buffer.concat(
    Array.from({ length: count }, (_, index) =>
      Buffer.concat([
        Buffer.from([type, 3, 1]),
        vector(2, message.subarray(index * fragmentBytes, (index + 1) * fragmentBytes)),
      ]),
    ),
  );
}

export function hello(...extensions: Buffer[]): Buffer {
  return records(helloMessage(extensions));
}

/** The start of a ServerHello; with `retry` it is a HelloRetryRequest (RFC 8446 §4.1.3). */
export function serverHello(retry: boolean): Buffer {
  const random = retry
    ? Buffer.from('cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c', 'hex')
    : Buffer.alloc(32, 5);
  return records(Buffer.concat([Buffer.from([2]), vector(3, Buffer.from([3, 3]), random, Buffer.alloc(6))]));
}
