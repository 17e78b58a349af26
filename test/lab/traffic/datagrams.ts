/**
 * Numbered UDP datagrams at a fixed rate and their echoes; run as `node datagrams.js ADDRESS PORT PER_SECOND`.
 *
 * Reports `{"type":"datagrams",…}` four times a second; ended by SIGTERM, it waits for the last echoes and reports
 * once more. Only then is what has not come back lost.
 */
import { createSocket } from 'node:dgram';

const TICK_MS = 2;
const BYTES = 64;
const LAST_ECHOES_MS = 1_000;
const MOST = 1_000_000;
const LISTED = 50;

export interface DatagramsReport {
  readonly type: 'datagrams';
  readonly sent: number;
  readonly received: number;
  readonly duplicated: number;
  /** The kernel refused to send, for example for want of a route. Part of `sent`. */
  readonly refused: number;
  readonly final: boolean;
  readonly lost: number;
  /** Numbers of the first lost ones. */
  readonly firstLost: readonly number[];
}

const [address = '', port = '7', rate = '500'] = process.argv.slice(2);
const socket = createSocket({ type: address.includes(':') ? 'udp6' : 'udp4', recvBufferSize: 1 << 20 });
const seen = new Uint8Array(MOST);
let sent = 0;
let received = 0;
let duplicated = 0;
let refused = 0;

socket.on('error', (error) => process.stderr.write(`${error.message}\n`));
socket.on('message', (message) => {
  const number = message.readUInt32BE(0);
  if (number >= sent) return;
  if (seen[number] === 1) duplicated += 1;
  else received += 1;
  seen[number] = 1;
});
socket.connect(Number(port), address, () => {
  const started = performance.now();
  const beat = setInterval(() => {
    const due = Math.min(MOST, Math.floor(((performance.now() - started) / 1000) * Number(rate)));
    for (; sent < due; sent += 1) {
      const message = Buffer.alloc(BYTES);
      message.writeUInt32BE(sent);
      socket.send(message, (error) => {
        if (error !== null) refused += 1;
      });
    }
  }, TICK_MS);
  const reports = setInterval(() => report(false), 250);
  process.on('SIGTERM', () => {
    clearInterval(beat);
    clearInterval(reports);
    const until = performance.now() + LAST_ECHOES_MS;
    const wait = setInterval(() => {
      if (received < sent && performance.now() < until) return;
      clearInterval(wait);
      report(true);
      process.exit(0);
    }, TICK_MS);
  });
});

function lostNumbers(): number[] {
  const lost: number[] = [];
  for (let number = 0; number < sent && lost.length < LISTED; number += 1) if (seen[number] === 0) lost.push(number);
  return lost;
}

function report(final: boolean): void {
  const value: DatagramsReport = {
    type: 'datagrams',
    sent,
    received,
    duplicated,
    refused,
    final,
    lost: sent - received,
    firstLost: final ? lostNumbers() : [],
  };
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
