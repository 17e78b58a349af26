/** A host joins with what was left for it: in a file, or with its platform. */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import type { Examination } from '../../agent/platform/examination.ts';
import { PlatformError } from '../../agent/platform/platform.ts';
import { StateFolder } from '../../agent/shell/identity.ts';
import { joinProvisioned, type ProvisionedResult, type ProvisioningTools } from '../../agent/shell/provisioning.ts';
import type { Millis } from '../../proto/time.ts';
import { TestOverlay } from '../mapserver/overlay.ts';
import { type EmulatedPlatform, PlatformEmulator } from '../platform/emulator.ts';
import { isoImage } from '../platform/iso-image.ts';
import { temporaryFolder } from '../runtime/temporary-folder.ts';
import { ovfEnvironment } from './ovf-environment.ts';

describe('joining with what was left for a host', () => {
  const overlay = new TestOverlay();
  let url = '';
  before(async () => {
    await overlay.start();
    url = `https://127.0.0.1:${overlay.port}`;
  });
  after(() => overlay.remove());

  const PLATFORMS: Readonly<Record<string, (said: Said) => EmulatedPlatform>> = {
    openstack: (said) => ({
      files: { 'sys/class/dmi/id/product_name': 'OpenStack Nova\n' },
      routes: {
        '/openstack/latest/meta_data.json': JSON.stringify({
          uuid: 'i-1',
          meta: Object.fromEntries(Object.entries(said).map(([key, value]) => [`stayput-${key}`, value])),
        }),
      },
    }),
    kvm: (said) => ({
      files: {
        'sys/class/dmi/id/sys_vendor': 'QEMU\n',
        ...Object.fromEntries(
          Object.entries(said).map(([key, value]) => [
            `sys/firmware/qemu_fw_cfg/by_name/opt/stayput/${key}/raw`,
            `${value}\0`,
          ]),
        ),
      },
    }),
    xen: (said) => ({
      files: { 'sys/hypervisor/type': 'xen\n' },
      programs: {
        'xenstore-list': () => Object.keys(said).join('\n'),
        'xenstore-read': ([path]) =>
          path === 'vm' ? '/vm/1' : (said[path?.replace('vm-data/stayput/', '') ?? ''] ?? null),
      },
    }),
    vsphere: (said) => ({
      files: { 'sys/class/dmi/id/sys_vendor': 'VMware, Inc.\n' },
      programs: {
        'vmware-rpctool': ([asked]) => said[asked?.replace('info-get guestinfo.stayput.', '') ?? ''] ?? null,
      },
    }),
    ovf: (said) => ({
      files: { 'dev/disk/by-label/OVF\\x20ENV': isoImage({ 'ovf-env.xml': ovfEnvironment(prefixed(said)) }) },
    }),
  };

  for (const [platform, emulated] of Object.entries(PLATFORMS)) {
    test(`${platform}: map server, token, EIDs and names of the platform`, async (t) => {
      const token = await overlay.token({ eids: ['10.77.3.0/24'], names: ['*.db'] });
      const said = { 'map-server': url, token, eid: '10.77.3.5,10.77.3.6', name: 'a.db=10.77.3.5,b.db=10.77.3.6' };
      const host = new Host(t, await PlatformEmulator.start(t, emulated(said)));
      const result = await host.join({ platform: 'auto' });
      assert.equal(result.kind, 'joined');
      assert.deepEqual(host.owned(), ['10.77.3.5/32', '10.77.3.6/32', 'a.db', 'b.db']);
      assert.ok(host.lines.some((line) => line.includes(url) && line.includes('10.77.3.5')));
      assert.ok(!host.lines.join('\n').includes(token), 'the token is in no line');
    });
  }

  test('a host with an identity asks nobody: nothing that is said later changes it', async (t) => {
    const host = new Host(t);
    const file = host.file({ mapServer: url, token: await overlay.token({ eids: ['10.77.4.1/32'] }) });
    assert.equal((await host.join({ file })).kind, 'joined');
    const identity = host.folder.requireIdentity();
    writeFileSync(file, JSON.stringify({ mapServer: 'https://192.0.2.1', token: 'stp1.other' }));
    assert.equal((await host.join({ file, platform: 'auto' })).kind, 'already');
    assert.deepEqual(host.folder.requireIdentity(), identity);
    assert.equal(host.examined, 0);
  });

  test('a file with a token is all there is to know; the platform is not asked', async (t) => {
    const host = new Host(t);
    const token = await overlay.token({ eids: ['10.77.4.2/32'], names: ['file'] });
    const file = host.file({ mapServer: url, token, eids: ['10.77.4.2'], names: ['file'] });
    assert.equal((await host.join({ file, platform: 'auto' })).kind, 'joined');
    assert.equal(host.examined, 0);
    assert.deepEqual(host.owned(), ['10.77.4.2/32', 'file']);
  });

  test('a file without a token is completed by the platform, which cannot overrule it', async (t) => {
    const token = await overlay.token({ eids: ['10.77.4.3/32'], names: ['image', 'tag'] });
    const said = { 'map-server': 'https://192.0.2.1:1', token, eid: '10.77.4.3', name: 'tag' };
    const host = new Host(t, await PlatformEmulator.start(t, PLATFORMS.kvm!(said)));
    const file = host.file({ mapServer: url, token: '', eids: [], names: ['image'] });
    assert.equal((await host.join({ file, platform: 'auto' })).kind, 'joined');
    assert.deepEqual(host.owned(), ['10.77.4.3/32', 'image']);
  });

  test('nothing in a file and nothing said by the platform is no error', async (t) => {
    for (const emulated of [{}, PLATFORMS.kvm!({})]) {
      const host = new Host(t, await PlatformEmulator.start(t, emulated));
      const result = await host.join({ file: join(host.folder.path, 'absent.json'), platform: 'auto' });
      assert.equal(result.kind, 'nothing');
      assert.equal(host.folder.identity(), undefined);
    }
  });

  test('half of it is an error that says what is missing', async (t) => {
    const host = new Host(t, await PlatformEmulator.start(t, PLATFORMS.kvm!({ eid: '10.77.4.4', token: 'stp1.x' })));
    await assert.rejects(host.join({ platform: 'auto' }), /KVM: no map server is named/);
    const file = host.file({ mapServer: url });
    await assert.rejects(host.join({ file }), /there is no join token/);
    await assert.rejects(host.join({ file: '/nowhere/join.json' }), /cannot be read/);
    await assert.rejects(host.join({ file: host.file({ mapserver: url }) }), /did you mean "mapServer"/);
  });

  test('a file that others can read is named, and a broken one is not quoted', async (t) => {
    const host = new Host(t);
    const file = host.file({ mapServer: url, token: await overlay.token({ eids: ['10.77.4.5/32'] }) });
    chmodSync(file, 0o644);
    await host.join({ file });
    assert.ok(host.lines.some((line) => line.includes('others on this host can read the token')));
    const broken = new Host(t);
    writeFileSync(file, '{"token": "stp1.secret" "mapServer"');
    await assert.rejects(broken.join({ file }), (error: Error) => !error.message.includes('secret'));
  });

  test('a metadata service and a map server that are away are asked again, with growing pauses, for as long as was said', async (t) => {
    const late = new TestOverlay();
    await late.start();
    t.after(() => late.remove());
    const token = await late.token({ eids: ['10.77.0.9/32'] });
    const { port } = late;
    await late.stop();
    const said = { 'map-server': `https://127.0.0.1:${port}`, token, eid: '10.77.0.9' };
    const host = new Host(t, await PlatformEmulator.start(t, PLATFORMS.kvm!(said)));
    host.silentReadings = 3;
    const waits: string[] = [];
    host.onSleep = () => {
      waits.push(host.lines.at(-1) ?? '');
    };
    const result = await host.join({ platform: 'auto' }, 60_000).catch((error: Error) => error);
    assert.ok(result instanceof Error);
    assert.match(result.message, /cannot be reached/);
    assert.ok(waits.slice(0, 3).every((line) => /silent.*trying again in/.test(line)));
    assert.match(waits[3] ?? '', /cannot be reached.*trying again in/);
    assert.ok(host.clock <= 60_000 && host.clock > 20_000, `${host.clock}`);
    assert.ok(waits.length < 15, `${waits.length} tries`);
  });

  test('what is away for hours is asked all the time, and said seldom', async (t) => {
    const host = new Host(t, await PlatformEmulator.start(t, PLATFORMS.kvm!({ token: 'stp1.x' })));
    host.silentReadings = Number.POSITIVE_INFINITY;
    let tries = 0;
    host.onSleep = () => {
      tries++;
    };
    await assert.rejects(host.join({ platform: 'auto' }, 4 * 3_600_000), /silent/);
    assert.ok(tries > 400, `${tries} tries`);
    assert.ok(host.lines.length > 5 && host.lines.length < 20, `${host.lines.length} lines`);
  });

  test('a map server that comes back within the patience is joined', async (t) => {
    const host = new Host(t);
    const token = await overlay.token({ eids: ['10.77.4.7/32'] });
    const gate = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => gate.listen(0, '127.0.0.1', resolve));
    const { port } = gate.address() as { port: number };
    const file = host.file({ mapServer: `https://127.0.0.1:${port}`, token, eids: ['10.77.4.7'] });
    let sleeps = 0;
    host.onSleep = async () => {
      if (++sleeps !== 2) return;
      await new Promise((resolve) => gate.close(resolve));
      const { connect } = await import('node:net');
      const relay = createServer((socket) => {
        const inner = connect(overlay.port, '127.0.0.1');
        socket.pipe(inner).pipe(socket);
        for (const end of [socket, inner]) end.on('error', () => undefined);
      });
      t.after(() => relay.close());
      await new Promise<void>((resolve) => relay.listen(port, '127.0.0.1', resolve));
    };
    assert.equal((await host.join({ file }, 60_000)).kind, 'joined');
    assert.equal(sleeps, 2);
  });

  test('a token that is refused is not tried again', async (t) => {
    const token = await overlay.token({ eids: ['10.77.4.6/32'] });
    const first = new Host(t);
    await first.join({ file: first.file({ mapServer: url, token, eids: ['10.77.4.6'] }) });
    const second = new Host(t);
    const file = second.file({ mapServer: url, token, eids: ['10.77.4.6'] });
    await assert.rejects(second.join({ file }, 60_000), { code: 'STAYPUT_TOKEN_SPENT' });
    assert.equal(second.clock, 0);
    assert.ok(existsSync(file));
  });

  // Attack: the address of another overlay's map server beside the token of the right one | 1 | the join fails before the token or a key is sent
  test('attack: a platform that names another map server than the token is for', async (t) => {
    const stranger = new TestOverlay();
    await stranger.start();
    t.after(() => stranger.remove());
    const token = await overlay.token({ eids: ['10.77.4.8/32'] });
    const said = { 'map-server': `https://127.0.0.1:${stranger.port}`, token, eid: '10.77.4.8' };
    const host = new Host(t, await PlatformEmulator.start(t, PLATFORMS.kvm!(said)));
    await assert.rejects(host.join({ platform: 'auto' }, 60_000), { code: 'STAYPUT_CA_FINGERPRINT' });
    assert.equal(host.folder.identity(), undefined);
  });
});

function prefixed(said: Said): Said {
  return Object.fromEntries(Object.entries(said).map(([key, value]) => [`stayput.${key}`, value]));
}

type Said = Readonly<Record<string, string>>;

/** A host in virtual time. */
class Host {
  readonly folder: StateFolder;
  readonly lines: string[] = [];
  clock: Millis = 0;
  examined = 0;
  /** So many questions the platform does not answer at first. */
  silentReadings = 0;
  onSleep: () => void | Promise<void> = () => {};
  private readonly emulator: PlatformEmulator | undefined;
  private files = 0;

  constructor(t: TestContext, emulator?: PlatformEmulator) {
    this.folder = new StateFolder(temporaryFolder(t));
    this.emulator = emulator;
  }

  join(sources: { file?: string; platform?: string }, patience: Millis = 0): Promise<ProvisionedResult> {
    const tools: ProvisioningTools = {
      examine: (wanted) => this.examine(wanted),
      now: () => this.clock,
      random: () => 1,
      sleep: async (ms) => {
        this.clock += ms;
        await this.onSleep();
      },
    };
    return joinProvisioned(
      this.folder,
      {
        sources: { file: sources.file, platform: sources.platform },
        patience,
        software: 'test',
        onRead: () => {},
        say: (line) => this.lines.push(line),
      },
      tools,
    );
  }

  file(content: object): string {
    const path = join(this.folder.path, `join-${++this.files}.json`);
    writeFileSync(path, JSON.stringify(content), { mode: 0o600 });
    return path;
  }

  owned(): string[] {
    return this.folder
      .eids()
      .eids.filter(({ kind }) => kind !== 'agent')
      .map(({ eid }) => eid.replace(/^\[0\]/, '').replace(/^name:/, ''))
      .sort();
  }

  private async examine(wanted: string): Promise<Examination> {
    this.examined++;
    assert.ok(this.emulator !== undefined, 'the platform was asked');
    const examination = await this.emulator.examine(wanted);
    if (this.silentReadings-- <= 0) return examination;
    return { ...examination, facts: null, problem: new PlatformError('timeout', 'the service is silent') };
  }
}
