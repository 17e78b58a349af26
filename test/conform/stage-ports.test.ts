/** Checks take turns with the ports of LISP, and each turn ends, whatever becomes of the check. */
import { strict as assert } from 'node:assert';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import { NotTried } from '../../conform/check.ts';
import { Exclusive } from '../../conform/exclusive.ts';
import { StagePorts } from '../../conform/lisp/stage-ports.ts';
import { Pacer } from '../../conform/pacer.ts';
import { ended, RawProgram } from './raw-program.ts';

const LOCAL = '127.77.48.1';
const TARGET = { address: LOCAL, port: 9, family: 4 } as const;

test('a port that is there once goes from stage to stage', async () => {
  const turns = new Exclusive();
  const [first, second] = [stagePorts(), stagePorts()];
  const opened = await first.openInTurn(turns, TARGET, 4342);
  assert.equal(opened.port, 4342);
  const waiting = second.openInTurn(turns, TARGET, 4342);
  first.close();
  assert.equal((await waiting).port, 4342);
  second.close();
});

test('a turn that comes after the stage was cleared goes to the next at once', async () => {
  const turns = new Exclusive();
  const [first, late, next] = [stagePorts(), stagePorts(), stagePorts()];
  await first.openInTurn(turns, TARGET, 4341);
  const refused = assert.rejects(late.openInTurn(turns, TARGET, 4341), NotTried);
  const waiting = next.openInTurn(turns, TARGET, 4341);
  // Its check took too long while it waited.
  late.close();
  first.close();
  await refused;
  assert.equal((await waiting).port, 4341);
  next.close();
});

test('a stage that was cleared opens nothing any more', async () => {
  const ports = stagePorts();
  const opening = assert.rejects(ports.open(TARGET), NotTried);
  ports.close();
  await opening;
  await assert.rejects(ports.open(TARGET), NotTried);
});

test('a raw socket that is ready after the stage was cleared is closed', async (t) => {
  const program = await RawProgram.make(t);
  const ports = stagePorts();
  const refused = assert.rejects(ports.openRaw(program.path, 4341), /Its stage was cleared/);
  const pid = await program.pid();
  ports.close();
  await program.becomeReady();
  await refused;
  await ended(pid);
});

test('a raw socket ends with its stage', async (t) => {
  const program = await RawProgram.make(t);
  const ports = stagePorts();
  const opening = ports.openRaw(program.path, 4341);
  const pid = await program.pid();
  await program.becomeReady();
  await opening;
  ports.close();
  await ended(pid);
});

test('a port that somebody else has is said, and its turn ends with the stage', async (t) => {
  const other = createSocket('udp4');
  t.after(() => other.close());
  other.bind(0, LOCAL);
  await once(other, 'listening');
  const { port } = other.address();
  const turns = new Exclusive();
  const ports = stagePorts();
  await assert.rejects(ports.openInTurn(turns, TARGET, port), new RegExp(`UDP port ${port} of ${LOCAL}.*EADDRINUSE`));
  ports.close();
  (await turns.take())();
});

function stagePorts(): StagePorts {
  return new StagePorts(new Pacer(1_000), LOCAL);
}
