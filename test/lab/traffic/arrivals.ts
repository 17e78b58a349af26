/**
 * Counts the numbered datagrams of datagrams.js that arrive; run as `node arrivals.js ADDRESS PORT`.
 *
 * Reports `{"type":"arrivals",…}` ten times a second, first when it listens.
 */
import { createSocket } from 'node:dgram';

const MOST = 1_000_000;

export interface ArrivalsReport {
  readonly type: 'arrivals';
  readonly received: number;
  readonly duplicated: number;
}

const [address = '', port = '9'] = process.argv.slice(2);
const socket = createSocket({ type: address.includes(':') ? 'udp6' : 'udp4', recvBufferSize: 1 << 24 });
const seen = new Uint8Array(MOST);
let received = 0;
let duplicated = 0;

socket.on('message', (message) => {
  const number = message.readUInt32BE(0);
  if (seen[number] === 1) duplicated += 1;
  else received += 1;
  seen[number] = 1;
});
socket.bind(Number(port), address, () => {
  const report = (): void => {
    const value: ArrivalsReport = { type: 'arrivals', received, duplicated };
    process.stdout.write(`${JSON.stringify(value)}\n`);
  };
  report();
  setInterval(report, 100);
});
