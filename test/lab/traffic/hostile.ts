/**
 * An attacker's hand; run as `node hostile.js udp ADDRESS PORT`, `tcp ADDRESS PORT` or `unix PATH`, with one message
 * per line of stdin in hex. Datagrams go out as they are; each message to a stream gets a connection of its own,
 * which ends when the other side closes it or after 300 ms. Prints how many were sent and how many were answered.
 */
import { createSocket } from 'node:dgram';
import { connect, type NetConnectOpts } from 'node:net';
import { text } from 'node:stream/consumers';

const PATIENCE_MS = 300;
const AT_ONCE = 20;

const [kind = '', address = '', port = '0'] = process.argv.slice(2);
const messages = (await text(process.stdin))
  .split('\n')
  .filter((line) => line !== '')
  .map((line) => Buffer.from(line, 'hex'));

const answered = kind === 'udp' ? await sendDatagrams() : await openConnections();
process.stdout.write(`${JSON.stringify({ type: 'hostile', sent: messages.length, answered })}\n`);

async function sendDatagrams(): Promise<number> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  let answers = 0;
  socket.on('message', () => {
    answers += 1;
  });
  for (const message of messages) {
    await new Promise<void>((resolve) => socket.send(message, Number(port), address, () => resolve()));
  }
  await new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
  socket.close();
  return answers;
}

async function openConnections(): Promise<number> {
  const where: NetConnectOpts = kind === 'unix' ? { path: address } : { host: address, port: Number(port) };
  let answers = 0;
  for (let i = 0; i < messages.length; i += AT_ONCE) {
    const results = await Promise.all(messages.slice(i, i + AT_ONCE).map((message) => converse(where, message)));
    answers += results.filter(Boolean).length;
  }
  return answers;
}

function converse(where: NetConnectOpts, message: Buffer): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(where, () => socket.write(message));
    let answered = false;
    socket.on('data', () => {
      answered = true;
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(answered));
    setTimeout(() => socket.destroy(), PATIENCE_MS);
  });
}
