/** An agent whose DNS sockets somebody holds is killed, and those who ask meanwhile notice no more than a pause. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { decode, streamDecode, streamEncode } from 'dns-packet';
import { join } from '../../agent/shell/enrolment.ts';
import { StateFolder } from '../../agent/shell/identity.ts';
import { inheritedSockets, parseSocketTable } from '../../runtime/inherited-sockets.ts';
import { TestOverlay } from '../mapserver/overlay.ts';
import { query } from './dns-support.ts';
import { SocketParent } from './socket-parent.ts';

const PROGRAM = fileURLToPath(import.meta.url.replace(/test\/agent\/dns-restart\.test\.(ts|js)$/, 'cli/main.$1'));

test('Questions that are asked while a killed agent starts again are all answered', { timeout: 120_000 }, async (t) => {
  const config = await configured(t);
  const parent = new SocketParent([process.execPath, PROGRAM, 'agent', 'run', '--config', config.path]);
  t.after(() => parent.end());
  const port = await parent.port();
  config.write(port);
  const first = await parent.start();
  await asked(port, 0);
  const answers: Promise<number>[] = [];
  let outstanding = 0;
  const ask = (): NodeJS.Timeout =>
    setInterval(() => {
      if (outstanding === WAITING) return;
      outstanding += 1;
      answers.push(asked(port, answers.length).finally(() => (outstanding -= 1)));
    }, 5);
  let load = ask();
  t.after(() => clearInterval(load));
  await answered(answers, 20);
  // A question that the agent has taken out of the socket dies with it.
  clearInterval(load);
  await Promise.all(answers);
  process.kill(first, 'SIGKILL');
  load = ask();
  await parent.child();
  const atKill = answers.length;
  const overTcp = askedOverTcp(port);
  assert.equal(await overTcp, '127.0.0.1');
  await answered(answers, atKill + 20);
  clearInterval(load);
  await Promise.all(answers);
});

test('Sockets for another process, or without number, are left alone', async (t) => {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  t.after(() => socket.close());
  await once(socket, 'listening');
  // It is one of the first descriptors of this process.
  const all = inheritedSockets({ LISTEN_PID: String(process.pid), LISTEN_FDS: '64' }).unused;
  assert.ok(all.includes(`127.0.0.1:${socket.address().port}/udp`), all.join());
  for (const [LISTEN_PID, LISTEN_FDS] of [
    [String(process.pid + 1), '64'],
    [String(process.pid), 'x'],
    [String(process.pid), '0'],
    [String(process.pid), '65'],
  ] as const) {
    const env: NodeJS.ProcessEnv = { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES: 'dns' };
    assert.deepEqual(inheritedSockets(env).unused, []);
    assert.deepEqual(env, {}, 'no child takes them for its own');
  }
});

test('The tables of the kernel say what listens where, on either kind of machine', () => {
  const udp = parseSocketTable(UDP, 'udp', 'LE');
  assert.deepEqual(udp, [{ transport: 'udp', inode: '71823', address: '127.0.0.1', port: 53 }]);
  const tcp6 = parseSocketTable(TCP6, 'tcp', 'LE');
  assert.deepEqual(tcp6, [{ transport: 'tcp', inode: '4711', address: 'fd77::5', port: 5353 }]);
  assert.equal(parseSocketTable(UDP.replace('0100007F', '7F000001'), 'udp', 'BE')[0]?.address, '127.0.0.1');
});

/** For `localhost`, which the agent knows by itself. Rejected where nobody listens. */
function asked(port: number, id: number): Promise<number> {
  const socket = createSocket('udp4');
  return new Promise<number>((resolve, reject) => {
    socket.on('error', reject);
    socket.on('message', (packet) => {
      const { answers, id: answeredId } = decode(packet);
      if (answeredId === (id & 0xffff) && answers?.length === 1) resolve(id);
      else reject(new Error(`another answer: ${packet.toString('hex')}`));
    });
    // Connected, so that a port where nobody listens is an error at once.
    socket.connect(port, '127.0.0.1', () => socket.send(query('localhost', 'A', { id: id & 0xffff })));
  }).finally(() => socket.close());
}

function askedOverTcp(port: number): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.write(streamEncode({ type: 'query', id: 1, questions: [{ type: 'A', name: 'localhost' }] }));
    });
    socket.on('error', reject);
    socket.once('data', (packet) => {
      socket.destroy();
      const first = streamDecode(packet).answers?.[0];
      resolve(first !== undefined && 'data' in first ? first.data : undefined);
    });
  });
}

/** The first so many are. */
async function answered(answers: readonly Promise<number>[], count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    while (answers.length <= i) await new Promise((resolve) => setImmediate(resolve));
    await answers[i];
  }
}

async function configured(t: TestContext) {
  const folder = mkdtempSync(joinPath(tmpdir(), 'stayput-dns-restart-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const overlay = new TestOverlay();
  await overlay.start();
  t.after(() => overlay.remove());
  const state = new StateFolder(joinPath(folder, 'state'));
  const token = await overlay.token({ eids: ['10.77.0.0/24'], names: ['*'] });
  const url = `https://127.0.0.1:${overlay.port}`;
  await join(state, { url, token, eids: ['10.77.0.5'], names: ['web'], force: false, software: 'test' });
  const path = joinPath(folder, 'agent.json');
  return {
    path,
    write: (port: number) =>
      writeFileSync(
        path,
        JSON.stringify({
          stateDir: state.path,
          socket: joinPath(folder, 'agent.sock'),
          dataplaneSocket: joinPath(folder, 'dataplane.sock'),
          metricsListen: null,
          dns: { listen: [`127.0.0.1:${port}`] },
        }),
      ),
  };
}

/** So many have room in a socket that nobody reads, with the kernel's default. */
const WAITING = 100;
const UDP = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  417: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 71823 2 0000000000000000 0
`;
const TCP6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 000077FD000000000000000005000000:14E9 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 000077FD000000000000000005000000:14E9 000077FD000000000000000006000000:8000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 100 0 0 10 0
`;
