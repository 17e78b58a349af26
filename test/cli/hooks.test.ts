/** What libvirt, CRIU and OCI runtimes say, and what the agent is told of it. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { criuEvent } from '../../cli/hooks/criu.ts';
import { libvirtEvents } from '../../cli/hooks/libvirt.ts';
import { demandOwnNetwork, ociSteps } from '../../cli/hooks/oci.ts';
import { checkedInterface } from '../../cli/hooks/workload.ts';
import { UsageError } from '../../proto/errors.ts';

describe('the qemu hook of libvirt', () => {
  it('expects the guest behind its tap device when its QEMU has started, also for a migration that comes in', () => {
    assert.deepEqual(libvirtEvents('started', 'begin', domain()), [
      { what: 'expected', eid: '10.77.0.9/32', interface: 'vnet3', names: ['db'] },
      { what: 'expected', eid: 'fd77::9/128', interface: 'vnet4', names: [] },
    ]);
  });

  it('says that it has gone when it has stopped, also on the source of a migration', () => {
    assert.deepEqual(
      libvirtEvents('stopped', 'end', domain()).map(({ what, interface: on }) => [what, on]),
      [
        ['gone', 'vnet3'],
        ['gone', 'vnet4'],
      ],
    );
  });

  it('is silent about other operations and about guests without EIDs', () => {
    assert.deepEqual(libvirtEvents('prepare', 'begin', 'not even XML'), []);
    assert.deepEqual(libvirtEvents('started', 'begin', '<domain><devices/></domain>'), []);
    assert.deepEqual(libvirtEvents('started', 'begin', '<domain><metadata><other/></metadata></domain>'), []);
  });

  it('refuses what it cannot use, and says what', () => {
    const refused: readonly (readonly [xml: string, why: RegExp])[] = [
      ['', /no domain XML/],
      ['<domain><metadata>', /no domain XML/],
      ['<network/>', /no domain XML/],
      [domain().replace('urn:stayput:workload:1', 'urn:other'), /must have xmlns:stayput/],
      [domain().replace('10.77.0.9', 'ten'), /stayput:eid: /],
      [domain().replace('mac="52:54:00:00:00:0B"', 'mac="52:54:00:ff:ff:ff"'), /no interface 52:54:00:ff:ff:ff/],
      [domain().replace('<target dev="vnet3"/>', ''), /no <target/],
      [domain().replace('vnet3', 'a/b'), /no name of an interface/],
    ];
    for (const [xml, why] of refused) {
      assert.throws(
        () => libvirtEvents('started', 'begin', xml),
        (error: Error) => error instanceof UsageError && why.test(error.message),
        xml,
      );
    }
  });

  // Attack: a document with nested entities | 1 | refused
  it('attack: a libvirt document with entities that expand without end', () => {
    const lol =
      '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]><domain><metadata>&b;</metadata></domain>';
    assert.throws(() => libvirtEvents('started', 'begin', lol), UsageError);
  });
});

describe('the action script of CRIU', () => {
  it('gives the EID up after the dump and takes it before the restore', () => {
    assert.deepEqual(
      ['pre-dump', 'network-lock', 'post-dump', 'pre-restore', 'network-unlock', 'post-resume'].map(criuEvent),
      [null, null, 'gone', 'here', null, null],
    );
  });
});

describe('the hook of an OCI runtime', () => {
  const state = (more: object): string =>
    JSON.stringify({ ociVersion: '1.0.2', id: 'c1', status: 'created', pid: 4711, bundle: '/b', ...more });

  it('lays a cable into the container and attaches its EID', () => {
    const steps = ociSteps(state({ annotations: { 'stayput.eid': '10.77.0.9', 'stayput.name': 'db' } }));
    assert.ok(steps !== null);
    const port = steps.event.interface;
    assert.match(port, /^sp-[0-9a-f]{10}$/);
    assert.deepEqual(steps.event, { what: 'here', eid: '10.77.0.9/32', interface: port, names: ['db'] });
    assert.deepEqual(steps.host, [`link add ${port} type veth peer name eth0 netns 4711`, `link set ${port} up`]);
    assert.ok(steps.container.includes('address add 10.77.0.9/32 dev eth0'));
  });

  it('does not lay it into the host’s own network', async () => {
    await assert.rejects(demandOwnNetwork(process.pid), /shares the host’s network/);
  });

  it('gives it up when the container has stopped', () => {
    const annotations = { 'stayput.eid': 'fd77::9' };
    const started = ociSteps(state({ annotations }));
    const stopped = ociSteps(state({ annotations, status: 'stopped', pid: 0 }));
    assert.deepEqual([stopped?.host, stopped?.container, stopped?.event.what], [[], [], 'gone']);
    assert.equal(stopped?.event.interface, started?.event.interface);
  });

  it('leaves containers without the annotation alone', () => {
    assert.equal(ociSteps(state({})), null);
    assert.equal(ociSteps(state({ annotations: { other: 'x' } })), null);
  });

  it('refuses what it cannot use', () => {
    for (const bad of [
      '',
      '{}',
      state({ id: '' }),
      state({ status: 'dancing' }),
      state({ annotations: { 'stayput.eid': '10.77.0.0/24' } }),
      state({ annotations: { 'stayput.eid': '10.77.0.9; reboot' } }),
      state({ pid: 0, annotations: { 'stayput.eid': '10.77.0.9' } }),
    ]) {
      assert.throws(() => ociSteps(bad), UsageError, bad);
    }
  });
});

describe('names of interfaces', () => {
  it('are those that the kernel takes', () => {
    assert.equal(checkedInterface('tap0', 'tap'), 'tap0');
    for (const bad of ['', 'a b', 'a/b', 'a:1', 'sixteen-letters-'])
      assert.throws(() => checkedInterface(bad, 'tap'), UsageError);
  });
});

function domain(): string {
  return `<?xml version="1.0"?>
<domain type="kvm" id="3">
  <name>db</name>
  <metadata>
    <stayput:workload xmlns:stayput="urn:stayput:workload:1">
      <stayput:eid address="10.77.0.9" name="db"/>
      <stayput:eid address="fd77::9" mac="52:54:00:00:00:0B"/>
    </stayput:workload>
  </metadata>
  <devices>
    <interface type="ethernet"><mac address="52:54:00:00:00:0a"/><target dev="vnet3"/></interface>
    <interface type="bridge"><mac address="52:54:00:00:00:0b"/><source bridge="br0"/><target dev="vnet4"/></interface>
  </devices>
</domain>`;
}
