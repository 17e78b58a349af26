/**
 * One TCP connection with a message every 10 ms and its echo; run as `node heartbeat.js ADDRESS PORT`.
 *
 * Reports `{"type":"heartbeat",…}` four times a second, and once more when it is ended by SIGTERM. The gap is the
 * longest time between two arrivals at this end, so it can never be shorter than the 10 ms between messages.
 * There is no reconnecting: when the connection dies, it is dead.
 */
import { connect } from 'node:net';

const INTERVAL_MS = 10;
const MESSAGE_BYTES = 16;
const LAST_ECHOES_MS = 2_000;

export interface HeartbeatReport {
  readonly type: 'heartbeat';
  readonly sent: number;
  readonly received: number;
  readonly longestGapMs: number;
  /** Since the beginning of the connection, when the longest gap ended. */
  readonly longestGapAtMs: number;
  /** Since the last echo. */
  readonly silentMs: number;
  readonly resets: number;
  readonly open: boolean;
}

const [address = '', port = '7'] = process.argv.slice(2);
const socket = connect({ host: address, port: Number(port), noDelay: true });
let sent = 0;
let bytes = 0;
let resets = 0;
let open = false;
let longestGap = 0;
let longestGapAt = 0;
let connected = 0;
let lastArrival = 0;
let ending = false;

socket.on('connect', () => {
  open = true;
  connected = performance.now();
  lastArrival = connected;
});
socket.on('data', (chunk) => {
  const now = performance.now();
  if (now - lastArrival > longestGap) {
    longestGap = now - lastArrival;
    longestGapAt = now - connected;
  }
  lastArrival = now;
  bytes += chunk.length;
});
socket.on('error', (error: NodeJS.ErrnoException) => {
  resets += 1;
  process.stderr.write(`${error.code ?? error.message}\n`);
});
socket.on('close', () => {
  open = false;
});

const beat = setInterval(() => {
  if (!open || ending) return;
  const message = Buffer.alloc(MESSAGE_BYTES);
  message.writeUInt32BE(sent);
  sent += 1;
  socket.write(message);
}, INTERVAL_MS);
const reports = setInterval(report, 250);

process.on('SIGTERM', () => {
  ending = true;
  clearInterval(beat);
  clearInterval(reports);
  const until = performance.now() + LAST_ECHOES_MS;
  const wait = setInterval(() => {
    if (open && bytes < sent * MESSAGE_BYTES && performance.now() < until) return;
    clearInterval(wait);
    report();
    process.exit(0);
  }, INTERVAL_MS);
});

function report(): void {
  const value: HeartbeatReport = {
    type: 'heartbeat',
    sent,
    received: Math.floor(bytes / MESSAGE_BYTES),
    longestGapMs: Math.round(longestGap * 10) / 10,
    longestGapAtMs: Math.round(longestGapAt),
    silentMs: connected === 0 ? 0 : Math.round(performance.now() - lastArrival),
    resets,
    open,
  };
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
