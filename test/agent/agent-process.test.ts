/** The shell for real: sockets, files and TLS, with a map server in this process and a data plane that forwards nothing. */
import { strict as assert } from 'node:assert';
import { X509Certificate } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import { join as joinPath } from 'node:path';
import { describe, test } from 'node:test';
import { startAdminSocket } from '../../agent/shell/admin-socket.ts';
import { CachedNameResolver } from '../../agent/shell/cached-name-resolver.ts';
import { CertificateRenewal } from '../../agent/shell/certificate-renewal.ts';
import { parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { CAPABILITY } from '../../proto/capability.ts';
import { DEFAULT_INSTANCE, type EidKey, prefixEid } from '../../proto/eid.ts';
import { waitFor } from '../lab/wait.ts';
import { TestOverlay } from '../mapserver/overlay.ts';
import { Relay } from './relay.ts';
import { agentProcesses, log, problems, TestAgent } from './test-agent.ts';

describe('an agent process', () => {
  const { overlay, folder, agents, closers, agent, token } = agentProcesses();

  test('registers, resolves and answers the command line', async () => {
    const a = await agent('a1', ['10.77.0.5'], '192.0.2.1');
    const b = await agent('b1', ['10.77.0.6'], '192.0.2.2');
    await a.until('registered');
    await b.until('registered');
    const status = (await a.call('GET', '/v1/status')) as { registered: boolean; problems: string[]; eids: object[] };
    assert.equal(status.registered, true);
    assert.deepEqual(status.problems, []);
    const found = (await b.call('GET', '/v1/resolve?q=vm-a1')) as { result: string; targets: string[] };
    assert.deepEqual([found.result, found.targets], ['found', ['10.77.0.5']]);
    await b.call('GET', '/v1/resolve?q=10.77.0.5');
    await b.dataplane.until(() => b.dataplane.commands.some((command) => command.type === 'peer-set'));
    const resolver = new CachedNameResolver(b.driver, DEFAULT_INSTANCE);
    assert.deepEqual(await resolver.resolvePointer(parseIpAddress('10.77.0.5')), {
      kind: 'found',
      names: ['vm-a1'],
      stale: false,
    });
    assert.deepEqual(await resolver.resolveName('nobody'), { kind: 'absent' });
    assert.deepEqual(await resolver.resolveName('not a name'), { kind: 'absent' });
    await assert.rejects(b.call('POST', '/v1/eids', { eid: '10.78.0.1' }), { code: 'STAYPUT_NOT_GRANTED' });
    await assert.rejects(b.call('POST', '/v1/eids', { eid: '10.77.0.7/24' }), /bits set/);
    await assert.rejects(b.call('POST', '/v1/eids', { eid: '10.77.0.7', interface: '../x' }), /interface/);
    await assert.rejects(b.call('DELETE', '/v1/eids/10.77.0.77'), { code: 'STAYPUT_NOT_ATTACHED' });
  });

  test('shows metrics of its own and of the data plane', async () => {
    const a = await agent('a2', ['10.77.0.8'], '192.0.2.1');
    await a.until('registered');
    const text = await a.metrics.registry.metrics();
    assert.match(text, /^stayput_agent_eids\{state="live"\} 1$/m);
    assert.match(text, /^stayput_agent_map_server_connected 1$/m);
    assert.match(text, /^stayput_dataplane_tun_rx_packets_total 7$/m);
    assert.match(text, /^stayput_dataplane_drops_total\{reason="replay"\} 2$/m);
    assert.match(text, /^stayput_dataplane_sessions 1$/m);
  });

  test('answers the command line in time while the data plane stands still', async (t) => {
    const path = joinPath(folder, 'a-still');
    const { folder: state } = await TestAgent.join(path, { token: token(), port: overlay.port, eids: [], address: '' });
    t.mock.timers.enable({ apis: ['setTimeout'] });
    // Without a map server: fenced. Nothing else in this process may depend on the clock meanwhile.
    const a = new TestAgent(state, path, '', { machine: { machineId: 'f'.repeat(32), productUuid: null } });
    a.dataplane.unanswered.add('stats').add('peers');
    await a.listen();
    while (!a.driver.dataplane.connected) await new Promise((resolve) => setImmediate(resolve));
    const status = a.call('GET', '/v1/status');
    const peers = assert.rejects(a.call('GET', '/v1/peers'), { code: 'STAYPUT_DATAPLANE_LATE', status: 503 });
    const asked = (what: string) => a.dataplane.commands.filter(({ type }) => type === what).length;
    await a.dataplane.until(() => asked('stats') === 1 && asked('peers') === 2);
    // Less than any command waits.
    t.mock.timers.tick(1500);
    const { heard, policy } = (await status) as { heard: unknown; policy: { denied: unknown } };
    assert.deepEqual([heard, policy.denied], [null, null]);
    await peers;
    await a.close();
  });

  test('a question leaves what is known as it is, and what comes in beside it does not', async () => {
    const a = await agent('a-asked', ['10.77.0.42'], '192.0.2.1');
    await a.until('registered');
    const own = prefixEid(DEFAULT_INSTANCE, parseIpPrefix('10.77.0.42/32'));
    const { version } = a.driver;
    await a.driver.resolve(own);
    assert.equal(a.driver.version, version);
    const resolve = a.driver.agent.resolve.bind(a.driver.agent);
    a.driver.agent.resolve = (...question) => {
      a.driver.useLocators([]);
      resolve(...question);
    };
    await a.driver.resolve(own);
    assert.equal(a.driver.version, version + 1);
  });

  test('goes on after an error of its own at an input, and ends when they come thick', async (t) => {
    const a = await agent('a-fault', ['10.77.0.9'], '192.0.2.1');
    await a.until('registered');
    const poisoned = { type: 'interface', name: 'poison', up: true } as const;
    const handle = a.driver.agent.handleDataplaneEvent.bind(a.driver.agent);
    a.driver.agent.handleDataplaneEvent = (event, now) => {
      if (event.type === 'interface' && event.name === 'poison') throw new TypeError('on purpose');
      handle(event, now);
    };
    a.dataplane.emit(poisoned);
    await waitFor('the fault to be counted', async () =>
      /^stayput_agent_faults_total 1$/m.test(await a.metrics.registry.metrics()),
    );
    const attached = (await a.call('POST', '/v1/eids', { eid: '10.77.0.99' })) as { state: string };
    assert.equal(attached.state, 'live');
    const { version } = a.driver;
    const stranger = { address: parseIpAddress('203.0.113.1'), port: 4342 };
    a.driver.receiveLisp(stranger, new Uint8Array());
    assert.equal(a.driver.version, version, 'nobody can empty the cache of DNS answers by datagrams');
    a.driver.agent.handleLispDatagram = () => {
      throw new TypeError('on purpose');
    };
    a.driver.receiveLisp(stranger, new Uint8Array());
    assert.match(await a.metrics.registry.metrics(), /^stayput_agent_faults_total 2$/m);
    const ends: unknown[] = [];
    const { setImmediate } = globalThis;
    t.mock.method(globalThis, 'setImmediate', (act: () => void) =>
      setImmediate(() => {
        try {
          act();
        } catch (error) {
          ends.push(error);
        }
      }),
    );
    for (let i = 0; i < 4; i++) a.dataplane.emit(poisoned);
    await waitFor('the agent to end', () => ends.length > 0);
    assert.match(String(ends[0]), /on purpose/);
  });

  test('a move is over in one exchange: target, claim, redirect', async () => {
    const a = await agent('a3', ['10.77.0.10'], '192.0.2.1');
    const b = await agent('b3', [], '192.0.2.2');
    await a.until('registered');
    await b.until('registered');
    b.dataplane.onCommand = (command) => {
      if (command.type === 'interface-watch') b.dataplane.emit({ type: 'interface', name: command.name, up: false });
    };
    assert.deepEqual(await b.call('POST', '/v1/eids', { eid: '10.77.0.10', interface: 'veth0' }), {
      eid: '10.77.0.10/32',
      state: 'target',
      generation: 0,
    });
    b.dataplane.emit({ type: 'interface', name: 'veth0', up: true });
    await a.dataplane.until(() => a.dataplane.commands.some((command) => command.type === 'local-eid-remove'));
    const removal = a.dataplane.commands.find((command) => command.type === 'local-eid-remove');
    assert.equal(removal?.redirectTo, b.identity.tunnelKey);
    await b.dataplane.until(() =>
      b.dataplane.commands.some((each) => each.type === 'local-eid-set' && each.redirectFrom === a.identity.tunnelKey),
    );
  });

  test('finds a restarted map server and comes back with its generation', async () => {
    const relay = new Relay(overlay.port);
    const port = await relay.listen();
    closers.push(() => relay.close());
    const a = await agent('a4', ['10.77.0.12'], '192.0.2.1', port);
    await a.until('registered');
    await overlay.stop();
    await a.until('lost');
    assert.match(await problems(a), /no session with the map server/);
    assert.equal(((await a.call('GET', '/v1/status')) as { registered: boolean }).registered, false);
    await overlay.start();
    relay.target = overlay.port;
    await a.until('registered');
    assert.deepEqual(
      a.driver.agent.ownEids().map(({ generation }) => generation),
      [1, 1, 1],
    );
  });

  test('a connection that a roam killed is replaced in parallel, long before it times out', async () => {
    const relay = new Relay(overlay.port);
    const port = await relay.listen();
    closers.push(() => relay.close());
    const a = await agent('a5', ['10.77.0.13'], '192.0.2.1', port);
    await a.until('registered');
    relay.swallow();
    const { connections } = relay;
    const before = performance.now();
    a.dataplane.emit({
      type: 'locators',
      addresses: [{ address: parseIpAddress('198.51.100.1'), interface: 'eth0', defaultRoute: true }],
    });
    await a.until(
      'in a new session',
      ({ agent, now }) => (agent.snapshot(now()).sessionMs ?? Number.POSITIVE_INFINITY) < performance.now() - before,
    );
    await a.until('registered');
    assert.equal(relay.connections, connections + 1);
  });

  test('what it says to be attached or detached is on disk already', async () => {
    const a = await agent('durable', ['10.77.0.90'], '192.0.2.90');
    await a.until('registered');
    const states = () => new Map(a.folder.eids().eids.map(({ eid, state }) => [eid, state]));
    for (let n = 91; n < 96; n++) {
      await a.call('POST', '/v1/eids', { eid: `10.77.0.${n}` });
      assert.equal(states().get(`[0]10.77.0.${n}/32` as EidKey), 'live');
    }
    for (let n = 91; n < 96; n++) {
      await a.call('DELETE', `/v1/eids/10.77.0.${n}`);
      assert.equal(states().get(`[0]10.77.0.${n}/32` as EidKey), undefined);
    }
  });

  test('says that its state cannot be written, goes on, and writes it when it can', async () => {
    const a = await agent('full', ['10.77.0.60'], '192.0.2.60');
    await a.until('registered');
    const file = joinPath(a.folder.path, 'eids.json');
    await a.until('at rest', () => a.folder.eids().eids.every(({ state }) => state === 'live'));
    rmSync(file);
    mkdirSync(file);
    await a.call('POST', '/v1/eids', { eid: '10.77.0.61' });
    await a.until('told', ({ unwrittenState }) => unwrittenState.length === 1);
    const { problems } = (await a.call('GET', '/v1/status')) as { problems: string[] };
    assert.match(problems.join('\n'), /eids\.json: cannot be written .*a restart of the agent would go back/);
    rmSync(file, { recursive: true });
    a.driver.close();
    assert.ok(a.folder.eids().eids.some(({ eid }) => eid === '[0]10.77.0.61/32'));
    assert.deepEqual(a.driver.unwrittenState, []);
  });

  test('a renewed certificate that could not be written is written when it can', async () => {
    const own = new TestOverlay();
    closers.push(() => own.remove());
    await own.start();
    const eids = ['10.77.0.62'];
    const [port, address] = [own.port, '192.0.2.62'];
    const a = await TestAgent.join(joinPath(folder, 'renewal'), {
      token: await own.token({ eids, names: ['*'] }),
      port,
      eids,
      address,
    });
    agents.push(a);
    await a.start();
    await a.until('registered');
    const before = a.folder.identity()?.certificate;
    const file = joinPath(a.folder.path, 'identity.json');
    rmSync(file);
    mkdirSync(file);
    await own.admin('POST', '/v1/authority/rotate');
    await a.until('told', ({ unwrittenState }) => unwrittenState.length === 1);
    rmSync(file, { recursive: true });
    await a.until('written', ({ unwrittenState }) => unwrittenState.length === 0);
    assert.notEqual(a.folder.identity()?.certificate, before);
  });

  test('the certificate is renewed for the same keys, and not for an agent that was revoked', async () => {
    const a = await agent('a11', ['10.77.0.21'], '192.0.2.1');
    await a.until('registered');
    const { notAfter } = a.driver.certificate;
    const renewed: string[] = [];
    const renewal = new CertificateRenewal(
      () => a.identity,
      ({ certificate }) => renewed.push(certificate),
      log,
      () => notAfter - 5 * 86_400_000,
    );
    closers.push(() => renewal.stop());
    assert.match(renewal.warning ?? '', /ends at .* and was not renewed/);
    await renewal.check();
    assert.equal(renewed.length, 1);
    const [before, after_] = [a.identity.certificate, renewed[0] ?? ''].map((pem) => new X509Certificate(pem));
    assert.notEqual(after_?.serialNumber, before?.serialNumber);
    assert.ok(after_?.publicKey.equals(before!.publicKey));
    assert.equal(after_?.subjectAltName, before?.subjectAltName);

    await overlay.admin('DELETE', `/v1/agents/${a.identity.xtrId}`);
    const refused = new CertificateRenewal(
      () => a.identity,
      () => assert.fail(),
      log,
      () => notAfter - 1000,
    );
    closers.push(() => refused.stop());
    await refused.check();
    assert.match(refused.warning ?? '', /revoked/);
  });

  test('a policy goes to the data plane, to the status and to the disk, from where it is enforced again', async () => {
    const enforcing = async (created: TestAgent): Promise<TestAgent> => {
      agents.push(created);
      created.dataplane.hello = { ...created.dataplane.hello, capability: CAPABILITY };
      await created.start();
      return created;
    };
    const path = joinPath(folder, 'enforcing');
    const options = { token: token(), port: overlay.port, eids: ['10.77.0.17'], address: '192.0.2.1' };
    const a = await enforcing(await TestAgent.join(path, options));
    await a.until('registered');
    const text = 'default deny\nallow from any to 10.77.0.17 tcp 80\n';
    await overlay.admin('POST', '/v1/policy', { text });
    const denies = ({ dataplane }: TestAgent) =>
      dataplane.commands.find((command) => command.type === 'policy-set' && command.default === 'deny');
    await a.dataplane.until(() => denies(a) !== undefined);
    a.dataplane.results.stats = { counters: { 'drop.policy': 3, 'drop.policy_in': 4 }, gauges: {} };
    const { policy } = (await a.call('GET', '/v1/status')) as { policy: { version: number } };
    assert.ok(policy.version > 0);
    assert.deepEqual({ ...policy, version: 0 }, { version: 0, default: 'deny', rules: 1, denied: { out: 3, in: 4 } });
    await a.close();
    await overlay.stop();
    const again = await enforcing(new TestAgent(a.folder, a.path, '192.0.2.1'));
    assert.deepEqual({ ...denies(again), id: 0 }, { ...denies(a), id: 0 });
    await overlay.start();
    await overlay.admin('POST', '/v1/policy', { text: 'default allow\n' });
  });

  test('a restarted agent brings its state back, and two on one socket are refused', async () => {
    const a = await agent('a7', ['10.77.0.15'], '192.0.2.1');
    const b = await agent('b7', ['10.77.0.16'], '192.0.2.2');
    await a.until('registered');
    await b.until('registered');
    await a.call('GET', '/v1/resolve?q=10.77.0.16');
    await assert.rejects(
      startAdminSocket(a.socket, a.driver, a.identity, () => undefined, log),
      /already running/,
    );
    await a.close();
    await b.close();
    await overlay.stop();
    const again = new TestAgent(a.folder, a.path, '192.0.2.1');
    agents.push(again);
    await again.start();
    await again.dataplane.until(() => again.dataplane.commands.some(({ type }) => type === 'sync-end'));
    const mapping = again.dataplane.commands.find(
      (command) => command.type === 'mapping-set' && command.prefix === '10.77.0.16/32',
    );
    assert.ok(mapping, 'the map-cache is forwarded before there is a map server');
    const found = (await again.call('GET', '/v1/resolve?q=10.77.0.16')) as { result: string; stale: boolean };
    assert.deepEqual([found.result, found.stale], ['found', true]);
    await overlay.start();
  });
});
