/** The program that opens raw sockets for the kit: it gets ready, says why it does not, or is ended. */
import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { NotTried } from '../../conform/check.ts';
import { RawUdp } from '../../conform/lisp/raw-udp.ts';
import { Pacer } from '../../conform/pacer.ts';
import { ended, RawProgram } from './raw-program.ts';

test('what comes at once with the word that it is ready is kept', async (t) => {
  const program = await RawProgram.make(t, '192.0.2.7:4341 9 3 zero 00ff');
  const opening = opened(program.path);
  await program.becomeReady();
  const raw = await opening;
  t.after(() => raw.close());
  const came = await raw.wait((datagram) => datagram, PATIENCE_MS);
  assert.deepEqual(came, { ttl: 9, tos: 3, checksum: 'zero', octets: Uint8Array.of(0, 0xff) });
});

test('without the right to it, a raw socket is said to be missing', async () => {
  await assert.rejects(opened('/bin/false'), refusal(/CAP_NET_RAW.*it ended with 1/));
});

test('without the program, a raw socket is said to be missing', async () => {
  await assert.rejects(opened(undefined), refusal(/needs stayput-dataplane/));
  await assert.rejects(opened('/nonexistent/stayput-dataplane'), refusal(/ENOENT/));
});

test('a program that does not get ready is ended', async (t) => {
  const program = await RawProgram.make(t);
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const refused = assert.rejects(opened(program.path), refusal(/no answer/));
  const pid = await program.pid();
  t.mock.timers.tick(30_000);
  await refused;
  t.mock.timers.reset();
  await ended(pid);
});

function opened(program: string | undefined): Promise<RawUdp> {
  return RawUdp.open(program, '127.0.0.1', 4341, new Pacer(1_000));
}

function refusal(why: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof NotTried && why.test(error.message);
}

const PATIENCE_MS = 60_000;
