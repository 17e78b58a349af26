/** Which epoch a process of the data plane is configured with: handshakes of an epoch that is not newer are refused. */
import { strict as assert } from 'node:assert';
import { describe, test } from 'node:test';
import { DataplaneProcess, type SavedDataplane } from '../../agent/core/dataplane-process.ts';
import { Outbox } from '../../agent/core/outbox.ts';
import { parseIpPrefix } from '../../proto/address.ts';
import { CAPABILITY, POLICY_CAPABILITY } from '../../proto/capability.ts';
import type { HelloReply } from '../../proto/dataplane/messages.ts';
import { DEFAULT_INSTANCE } from '../../proto/eid.ts';
import { agentAddressOf, xtrIdOf } from '../../proto/identity.ts';
import type { TunnelKey } from '../../proto/mapping.ts';

const KEY = Buffer.alloc(32, 1).toString('base64') as TunnelKey;
const KNOWN: SavedDataplane = { process: 'one', epoch: 500 };

describe('a data plane that is attached', () => {
  test('has its epoch as long as it is the same process', () => {
    const { process, epoch } = processAfter(KNOWN);
    assert.equal(process.handleHello(hello('one'), 9_000), true, 'it goes on with what it was told before');
    assert.equal(epoch(), 500);
    process.handleLost();
    assert.equal(process.handleHello(hello('one'), 9_000), false, 'by this agent');
    assert.equal(epoch(), 500);
  });

  test('has a larger one if it is another process, or was never configured', () => {
    for (const other of [hello('two'), { ...hello('one'), configured: false }]) {
      const { process, epoch, persisted } = processAfter(KNOWN);
      assert.equal(process.handleHello(other, 0), false);
      assert.deepEqual(persisted(), ['dataplane']);
      assert.deepEqual(process.save(), { process: other.process, epoch: 501 });
      assert.equal(epoch(), 501);
    }
  });

  test('has one of the clock, if the disk has lost what was before', () => {
    const { process, epoch } = processAfter({ process: null, epoch: 0 });
    process.handleHello(hello('one'), 1_700_000_000.5);
    assert.equal(epoch(), 1_700_000_000);
  });

  test('has raised it by itself after a snapshot', () => {
    const { process, epoch } = processAfter(KNOWN);
    process.handleHello(hello('one'), 0);
    process.handleResumed({ type: 'resumed', from: 'snapshot' });
    assert.equal(epoch(), 501);
  });

  test('begins above what the one before raised its own to, also when the clock was put back', () => {
    for (const from of ['suspend', 'snapshot'] as const) {
      const { process, persisted } = processAfter(KNOWN);
      process.handleHello(hello('one'), 0);
      process.handleResumed({ type: 'resumed', from, epoch: 2_000_000_000 });
      assert.deepEqual(persisted(), ['dataplane']);
      process.handleHello(hello('two'), 1_700_000_000);
      assert.equal(process.save().epoch, 2_000_000_001);
    }
  });

  test('that slept without a word of an epoch keeps its own', () => {
    const { process, epoch, persisted } = processAfter(KNOWN);
    process.handleHello(hello('one'), 0);
    process.handleResumed({ type: 'resumed', from: 'suspend' });
    assert.deepEqual(persisted(), []);
    assert.equal(epoch(), 500);
  });

  test('enforces policies from a version on, and nothing while it is away', () => {
    const { process } = processAfter(KNOWN);
    process.handleHello({ ...hello('one'), capability: POLICY_CAPABILITY - 1 }, 0);
    assert.equal(process.enforcesPolicy, false);
    process.handleHello(hello('one'), 0);
    assert.equal(process.enforcesPolicy, true);
    process.handleLost();
    assert.deepEqual([process.hello, process.enforcesPolicy], [null, false]);
  });
});

function processAfter(saved: SavedDataplane) {
  const outbox = new Outbox();
  const identity = {
    xtrId: xtrIdOf(KEY),
    tunnelKey: KEY,
    agentAddress: agentAddressOf(KEY),
    instance: DEFAULT_INSTANCE,
  };
  const settings = { privateKey: KEY, presharedKey: KEY, listenPort: 4341, mtu: 1420 };
  const process = new DataplaneProcess(saved, settings, identity, outbox);
  const take = () => Array.from({ length: 100 }, () => outbox.poll()).filter((output) => output !== undefined);
  return {
    process,
    /** That it is configured with. */
    epoch: () => {
      process.configure([parseIpPrefix('10.77.0.0/16')]);
      const configured = take().flatMap((output) =>
        output.to === 'dataplane' && output.command.type === 'configure' ? [output.command.epoch] : [],
      );
      return configured.at(-1);
    },
    persisted: () => take().flatMap((output) => (output.to === 'disk' ? [output.what] : [])),
  };
}

function hello(process: string): HelloReply {
  return {
    process,
    configured: true,
    capability: CAPABILITY,
    software: 'test',
    cipher: 'aes-256-gcm',
    offloads: [],
  };
}
