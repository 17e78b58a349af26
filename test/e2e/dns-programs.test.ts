/**
 * Names of the overlay as programs find them that know nothing of it: by the libc (getent), by a resolver of their own
 * (Node's c-ares), and by what they connect to (curl). Budget: 20 s.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { waitFor } from '../lab/wait.ts';
import { PLACE_1, Sandbox } from './dns-host-sandbox.ts';
import { requireLab } from './require.ts';

requireLab();

const [V4, V6] = ['10.77.0.5', 'fd00:77::5'];

test('programs find names and addresses of the overlay in both families, short or whole', async (t) => {
  const sandbox = await Sandbox.create();
  t.after(() => sandbox.close());
  await sandbox.run('ip', 'address', 'add', `${V6}/128`, 'dev', 'lo');
  await sandbox.agent();
  sandbox.host('file');
  await waitFor('the host asks the agent', () => /127\.0\.0\.1/.test(sandbox.read('/etc/resolv.conf')));

  for (const name of ['web.stayput.internal', 'web', 'WEB.Stayput.Internal.']) {
    assert.match(await sandbox.run('getent', 'ahostsv4', name), new RegExp(`^${V4} `), name);
    assert.match(await sandbox.run('getent', 'ahostsv6', name), new RegExp(`^${V6} `), name);
  }
  for (const address of [V4, V6]) {
    assert.match(await sandbox.run('getent', 'hosts', address), new RegExp(`^${address} +web\\.stayput\\.internal\\s`));
  }
  assert.equal(await sandbox.run('getent', 'hosts', 'none.stayput.internal'), '');
  assert.equal(await sandbox.run('getent', 'hosts', '10.77.0.200'), '');
  assert.equal(await sandbox.getent('www.example'), PLACE_1, 'all else is asked of the place');

  assert.deepEqual(JSON.parse(await sandbox.run(process.execPath, '-e', `(${asked})()`)), {
    lookup: [V4, V6],
    a: [V4],
    aaaa: [V6],
    reverse: [['web.stayput.internal'], ['web.stayput.internal']],
    none: 'ENOTFOUND',
    noData: 'ENODATA',
  });

  const server = sandbox.start('server', [process.execPath, '-e', `(${served})()`]);
  await sandbox.until(server, 'listens');
  for (const [family, address] of [
    ['-4', V4],
    ['-6', `[${V6}]`],
  ] as const) {
    const argv = ['curl', '-s', family, '--noproxy', '*', '-w', ' from %{remote_ip}', 'http://web:8080/'];
    assert.equal(await sandbox.run(...argv), `hello web:8080 from ${address.replace(/[[\]]/g, '')}`);
  }
});

/** Runs in the sandbox. */
async function asked(): Promise<void> {
  const dns = process.getBuiltinModule('node:dns').promises;
  const failure = (error: NodeJS.ErrnoException): string | undefined => error.code;
  const found = await dns.lookup('web', { all: true });
  process.stdout.write(
    JSON.stringify({
      lookup: found.map(({ address }) => address).sort(),
      a: await dns.resolve4('web.stayput.internal'),
      aaaa: await dns.resolve6('web.stayput.internal'),
      reverse: [await dns.reverse('10.77.0.5'), await dns.reverse('fd00:77::5')],
      none: await dns.resolve4('none.stayput.internal').catch(failure),
      noData: await dns.resolve6('db.stayput.internal').catch(failure),
    }),
  );
}

/** Runs in the sandbox. */
function served(): void {
  const { createServer } = process.getBuiltinModule('node:http');
  const server = createServer((request, response) => response.end(`hello ${request.headers.host}`));
  server.listen(8080, '::', () => process.stdout.write('listens\n'));
}
