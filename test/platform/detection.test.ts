/** Which platform a machine is on is found out without network, quickly, and said with the reasons. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { detectPlatform } from '../../agent/platform/detection.ts';
import { DRIVERS } from '../../agent/platform/drivers.ts';
import { readLocalFacts } from '../../agent/platform/local-facts.ts';
import { metadataAddress, serviceHosts } from '../../agent/platform/metadata-service.ts';
import { PLATFORM_NAMES, PlatformError } from '../../agent/platform/platform.ts';
import { platformReport, platformReportLines } from '../../agent/platform/report.ts';
import { UsageError } from '../../proto/errors.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { FAULTS, PlatformEmulator, routeTable } from './emulator.ts';

test('a machine without any mark is on no known platform, and nobody is asked', async (t) => {
  const emulator = await PlatformEmulator.start(t, {});
  const { detected, facts, problem } = await emulator.examine();
  assert.equal(detected.chosen.driver.name, 'none');
  assert.deepEqual(facts?.locators, []);
  assert.equal(problem, null);
  assert.deepEqual(emulator.requests, []);
  assert.ok(detected.verdicts.every(({ confidence, reason }) => confidence === 'none' && reason !== ''));
});

test('what nobody set, what is empty and what cannot be read is no mark', async (t) => {
  const { root } = await PlatformEmulator.start(t, {
    files: {
      'sys/class/dmi/id/sys_vendor': Buffer.alloc(16, 0xff),
      'sys/class/dmi/id/product_name': '  \n',
      'sys/class/dmi/id/chassis_asset_tag/is': 'a folder',
    },
  });
  const facts = readLocalFacts(root);
  assert.deepEqual([facts.sysVendor, facts.productName, facts.chassisAssetTag], [null, null, null]);
});

test('one that is named is asked whatever was detected; a name that is none is refused', async (t) => {
  const emulator = await PlatformEmulator.start(t, {});
  assert.equal((await emulator.examine('ec2')).detected.chosen.driver.name, 'ec2');
  assert.equal((await emulator.examine('none')).detected.chosen.driver.name, 'none');
  await assert.rejects(emulator.examine('ec3'), UsageError);
});

test('detection from local facts is quick', async (t) => {
  const { root } = await PlatformEmulator.start(t, { files: { 'sys/class/dmi/id/sys_vendor': 'Amazon EC2' } });
  const before = process.cpuUsage();
  for (let i = 0; i < 100; i++) detectPlatform(readLocalFacts(root), DRIVERS);
  const { user, system } = process.cpuUsage(before);
  assert.ok((user + system) / 100 < 100_000, `${(user + system) / 100} µs of CPU for one`);
});

test('each platform that can be named has a driver, in this order, and a row in the docs', () => {
  const names = [...DRIVERS.map(({ name }) => name), 'none'];
  assert.deepEqual(names, [...PLATFORM_NAMES]);
  const page = readFileSync(join(PROJECT_ROOT, 'docs/platforms.md'), 'utf8');
  assert.deepEqual(
    [...page.matchAll(/^\| `([a-z0-9]+)` \| /gm)].map(([, name]) => name).filter((name) => name !== 'certain'),
    ['likely', 'possible', 'none', ...names],
  );
});

test('a metadata service is on this link', () => {
  for (const service of ['169.254.169.254', '100.100.100.200', 'fd00:ec2::254', 'fe80::a9fe:a9fe']) {
    assert.equal(metadataAddress(service), service);
  }
  assert.equal(metadataAddress('10.1.1.1', ['10.1.1.1']), '10.1.1.1');
  for (const elsewhere of ['192.0.2.1', '127.0.0.1', '10.1.1.1', '::1', 'fd00::1']) {
    assert.throws(() => metadataAddress(elsewhere), PlatformError);
  }
});

test('a service is not asked through a tunnel, and on each interface where its address means one only there', async (t) => {
  const { root } = await PlatformEmulator.start(t, {
    files: {
      'proc/net/route': routeTable(['eth0', '0.0.0.0', '10.1.1.1', 0], ['stayput0', '100.0.0.0', '0.0.0.0', 8]),
      'proc/net/ipv6_route': [
        `${'0'.repeat(32)} 00 ${'0'.repeat(32)} 00 fe80${'0'.repeat(27)}1 00000400 1 0 00450003     eth0`,
        `fd000ec2${'0'.repeat(24)} 20 ${'0'.repeat(32)} 00 ${'0'.repeat(32)} 00000400 1 0 00000001 stayput0`,
      ].join('\n'),
      'sys/class/net/eth0/operstate': 'up\n',
      'sys/class/net/eth1/operstate': 'down\n',
      'sys/class/net/lo/operstate': 'unknown\n',
      'sys/class/net/stayput0/operstate': 'unknown\n',
      'sys/class/net/stayput0/tun_flags': '0x1\n',
    },
  });
  const hosts = (address: string) => serviceHosts(root, address, 80).map(({ host }) => host);
  assert.deepEqual(hosts('169.254.169.254'), ['169.254.169.254']);
  assert.deepEqual(hosts('fd00:42::42'), ['fd00:42::42']);
  assert.deepEqual(hosts('fe80::a9fe:a9fe'), ['fe80::a9fe:a9fe%eth0']);
  assert.throws(() => hosts('100.100.100.200'), /routed into the tunnel stayput0/);
  assert.throws(() => hosts('fd00:ec2::254'), /routed into the tunnel stayput0/);
});

test('a reading that is given up ends at once, with all its questions', async (t) => {
  const emulator = await PlatformEmulator.start(t, {}, FAULTS['accepts and is silent']);
  const end = new AbortController();
  const reading = emulator.examine('ec2', { givenUp: end.signal });
  setImmediate(() => end.abort());
  assert.equal((await reading).problem?.failure, 'unreachable');
});

for (const { name } of DRIVERS) {
  for (const [fault, server] of Object.entries(FAULTS)) {
    test(`${name}: a service that ${fault} gives no address, and an end in time`, async (t) => {
      const emulator = await PlatformEmulator.start(t, {}, server);
      emulator.limits = { requestMs: 200, readingMs: 400, maxOctets: 1 << 20 };
      const { facts, problem } = await emulator.examine(name);
      assert.deepEqual(facts?.locators ?? [], []);
      assert.deepEqual(facts?.provisioning ?? {}, {});
      if (facts === null) assert.ok(problem instanceof PlatformError);
    });
  }
}

test('the report names all others and their reasons, and does not show the join token', async (t) => {
  const emulator = await PlatformEmulator.start(t, {
    files: { 'sys/class/dmi/id/product_name': 'OpenStack Nova' },
    routes: { '/openstack/latest/meta_data.json': '{"uuid": "u-1", "meta": {"stayput-token": "stp1.secret"}}' },
  });
  const report = platformReport(await emulator.examine());
  const lines = platformReportLines(report).join('\n');
  assert.match(lines, /^platform +OpenStack \(openstack\), certain: the firmware says OpenStack Nova/);
  assert.match(lines, /^instance +u-1$/m);
  assert.match(lines, /^not ec2 +none: \S/m);
  assert.equal(report.others.length, DRIVERS.length - 1);
  assert.ok(!`${JSON.stringify(report)}${lines}`.includes('stp1.secret'));
});
