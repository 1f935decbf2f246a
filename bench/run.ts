/** The whole benchmark: each figure is measured through the SDK and, interleaved, against a floor of its own. */
import { cpus, totalmem } from 'node:os';
import { startTestDaemon } from '@instavm/testing';
import { InstaVM } from 'instavm';
import { egressRows } from './egress.ts';
import { createToFirstExec, execRoundTrip, manyExecs } from './exec.ts';
import { Floor } from './floor.ts';
import { lifecycleRows } from './lifecycle.ts';
import { listRows } from './lists.ts';
import { meteringRows } from './metering.ts';
import { previewRows } from './previews.ts';
import { ptyRows } from './pty.ts';
import { median, type Row, ratio, rssMib, table, timed } from './report.ts';
import { FULL, QEMU } from './subject.ts';

const BULK_ROUNDS = 3;
const BULK_BYTES = 100 * 1024 * 1024;
const CHUNK = Buffer.alloc(256 * 1024);

export async function runBench({ json }: { readonly json: boolean }): Promise<void> {
  const progress = (what: string): void => console.error(`… ${what}`);
  const daemon = await startTestDaemon({ vmm: 'qemu' });
  const client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  const floor = await Floor.open();
  try {
    const rows: Row[] = [];
    progress('create to first exec');
    const created = await createToFirstExec(client, floor, FULL.creates);
    rows.push(ratio('create → first exec, without pool', created.ms, created.floorMs, 1.3));
    progress('exec round trip');
    rows.push(await execRoundTrip(client, floor, FULL.execs));
    progress('creates, suspensions, many idle sandboxes');
    rows.push(...(await lifecycleRows(client, daemon, created.ms, QEMU)));
    progress('terminals');
    rows.push(...(await ptyRows(client, floor, daemon)));
    progress('the network of a sandbox');
    rows.push(...(await egressRows(floor)));
    progress('counting and keys');
    rows.push(...(await meteringRows()));
    progress('lists');
    rows.push(...(await listRows()));
    progress('previews');
    rows.push(...(await previewRows(floor)));
    progress('upload and download');
    rows.push(...(await bulk(client, floor, daemon.pid)));
    progress('many execs in one sandbox');
    rows.push(...(await manyExecs(client, FULL)));
    const host = {
      cpus: cpus().length,
      cpu: cpus()[0]?.model ?? '',
      memoryGib: Math.round(totalmem() / 2 ** 30),
      accelerator: floor.accelerator,
    };
    if (json) console.log(JSON.stringify({ host, rows }, null, 2));
    else
      console.log(
        `${table(rows)}\n\nHost: ${host.cpus} × ${host.cpu}, ${host.memoryGib} GiB, guests by ${host.accelerator}.\n\n${JSON.stringify({ host, rows })}`,
      );
  } finally {
    await floor.close();
    client.close();
    await daemon.stop();
  }
}

async function bulk(client: InstaVM, floor: Floor, daemonPid: number): Promise<Row[]> {
  const sandbox = await client.sandboxes.create();
  const direct = await floor.clone();
  const rates = { up: [] as number[], down: [] as number[], rawUp: [] as number[], rawDown: [] as number[] };
  const rate = (ms: number): number => BULK_BYTES / 1e6 / (ms / 1000);
  const before = await rssMib(daemonPid);
  let peak = before;
  const watch = setInterval(() => void rssMib(daemonPid).then((now) => (peak = Math.max(peak, now))), 50);
  async function* contents() {
    for (let sent = 0; sent < BULK_BYTES; sent += CHUNK.length) yield CHUNK;
  }
  for (let round = 0; round < BULK_ROUNDS; round++) {
    rates.rawUp.push(rate(await direct.rawUpload(BULK_BYTES)));
    rates.up.push(rate(await timed(() => sandbox.files.write('/root/bulk', contents()))));
    rates.rawDown.push(rate(await direct.rawDownload(BULK_BYTES)));
    rates.down.push(
      rate(
        await timed(async () => {
          let size = 0;
          for await (const chunk of sandbox.files.readStream('/root/bulk')) size += chunk.length;
          if (size !== BULK_BYTES) throw new Error(`the download has ${size} bytes`);
        }),
      ),
    );
  }
  clearInterval(watch);
  await direct.end();
  await sandbox.delete();
  return [
    share('upload of 100 MB', median(rates.up), median(rates.rawUp)),
    share('download of 100 MB', median(rates.down), median(rates.rawDown)),
    {
      name: 'daemon memory grown by transfers',
      measured: `${Math.round(peak - before)} MiB`,
      floor: '',
      ratio: '',
      target: 'constant',
    },
  ];
}

const share = (name: string, ours: number, raw: number): Row => ({
  name,
  measured: `${ours.toFixed(0)} MB/s`,
  floor: `${raw.toFixed(0)} MB/s raw`,
  ratio: (ours / raw).toFixed(2),
  target: '≥ 0.6 of raw',
});
