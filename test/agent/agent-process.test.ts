/** The shell for real: sockets, files and TLS, with a map server in this process and a data plane that forwards nothing. */
import { strict as assert } from 'node:assert';
import { X509Certificate } from 'node:crypto';
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { pino } from 'pino';
import { AGENT_CONFIG } from '../../agent/config.ts';
import { type Machine, NEVER_RUN } from '../../agent/core/incarnation.ts';
import { startAdminSocket } from '../../agent/shell/admin-socket.ts';
import { CachedNameResolver } from '../../agent/shell/cached-name-resolver.ts';
import { CertificateRenewal } from '../../agent/shell/certificate-renewal.ts';
import { AgentDriver } from '../../agent/shell/driver.ts';
import { join, keepIdentity, resetIdentity } from '../../agent/shell/enrolment.ts';
import { StateFolder } from '../../agent/shell/identity.ts';
import { AgentMetrics } from '../../agent/shell/metrics.ts';
import { parseIpAddress } from '../../proto/address.ts';
import { CAPABILITY } from '../../proto/capability.ts';
import { DEFAULT_INSTANCE, type EidKey, parseEid } from '../../proto/eid.ts';
import { callApi } from '../../runtime/http-api.ts';
import { waitFor } from '../lab/wait.ts';
import { TestOverlay } from '../mapserver/overlay.ts';
import { FakeDataplane } from './fake-dataplane.ts';

const log = pino({ level: 'silent' });

describe('an agent process', () => {
  const overlay = new TestOverlay();
  const folder = mkdtempSync(joinPath(tmpdir(), 'stayput-agent-'));
  const agents: TestAgent[] = [];
  const closers: (() => unknown)[] = [];
  let token: string;

  before(async () => {
    await overlay.start();
    token = await overlay.token({ eids: ['10.77.0.0/24'], names: ['*'], uses: 50 });
  });

  afterEach(async () => {
    for (const agent of agents.splice(0)) await agent.close();
    for (const close of closers.splice(0)) await close();
  });

  after(async () => {
    await overlay.remove();
    rmSync(folder, { recursive: true, force: true });
  });

  const agent = async (name: string, eids: readonly string[], address: string, port = overlay.port) => {
    const created = await TestAgent.join(joinPath(folder, name), { token, port, eids, address });
    agents.push(created);
    await created.start();
    return created;
  };

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
    const { inputs } = a.driver;
    const stranger = { address: parseIpAddress('203.0.113.1'), port: 4342 };
    a.driver.receiveLisp(stranger, new Uint8Array());
    assert.equal(a.driver.inputs, inputs, 'nobody can empty the cache of DNS answers by datagrams');
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
    assert.ok(performance.now() - before < 2000);
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

  // Attack: the same state folder started on two hosts | 1 | the newer goes on; the other registers and forwards
  // nothing and says so
  test('attack: a copied host beside the original', async () => {
    const a = await agent('a6', ['10.77.0.14'], '192.0.2.1');
    await a.until('registered');
    const copied = `${a.path}-copy`;
    cpSync(a.folder.path, copied, { recursive: true });
    const copy = new TestAgent(new StateFolder(copied), `${a.path}-copy`, '192.0.2.9');
    agents.push(copy);
    await copy.start();
    await copy.until('registered');
    await a.until('fenced');
    assert.match(await problems(a), /the newer one \(run 2, here 1\).*reset-identity/);
    assert.match(await a.metrics.registry.metrics(), /^stayput_agent_fenced 1$/m);
    await a.dataplane.until(() => isEmptySync(a.dataplane));
    await assert.rejects(a.call('GET', '/v1/resolve?q=10.77.0.14'), { code: 'STAYPUT_FENCED' });
    assert.equal(copy.driver.fence, null);

    await a.close();
    const restarted = new TestAgent(a.folder, `${a.path}-again`, '192.0.2.1');
    agents.push(restarted);
    await restarted.listen();
    assert.match(await problems(restarted), /the newer one/);
    assert.equal(restarted.driver.mapServer.connected, false);
    await restarted.close();

    keepIdentity(a.folder, ME);
    const kept = new TestAgent(a.folder, `${a.path}-kept`, '192.0.2.1');
    agents.push(kept);
    await kept.start();
    await kept.until('registered');
    await copy.until('fenced');
  });

  // Attack: an agent started with the state of another machine | 1 | does not register, and says what to do
  test('attack: a state folder carried to another machine', async () => {
    const a = await agent('a8', ['10.77.0.17'], '192.0.2.1');
    await a.until('registered');
    await a.close();
    const elsewhere = { ...ME, machineId: 'f'.repeat(32) };
    const moved = new TestAgent(a.folder, `${a.path}-moved`, '192.0.2.9', { machine: elsewhere });
    agents.push(moved);
    await moved.listen();
    assert.match(await problems(moved), /not the machine that joined \(another machine-id\).*reset-identity/);
    await moved.close();
    const accepted = new TestAgent(a.folder, `${a.path}-accepted`, '192.0.2.9', {
      machine: elsewhere,
      identity: { onMachineChange: 'accept' },
    });
    agents.push(accepted);
    await accepted.start();
    await accepted.until('registered');
  });

  test('a copy that gets an identity of its own leaves the first one alone', async () => {
    const a = await agent('a9', ['10.77.0.18'], '192.0.2.1');
    await a.until('registered');
    const folder = new StateFolder(`${a.path}-copy`);
    cpSync(a.folder.path, folder.path, { recursive: true });
    const request = { token, eids: ['10.77.0.19'], names: ['other'], software: 'test' };
    const { identity } = await resetIdentity(folder, request);
    folder.writeIncarnation({ ...NEVER_RUN, machine: ME });
    assert.notEqual(identity.xtrId, a.identity.xtrId);
    const copy = new TestAgent(folder, `${a.path}-copy`, '192.0.2.9');
    agents.push(copy);
    await copy.start();
    await copy.until('registered');
    assert.deepEqual(
      copy.driver.agent.ownEids().flatMap(({ eid, kind }) => (kind === 'address' ? [eid] : [])),
      [parseEid('10.77.0.19')],
    );
    await a.until('registered');
  });

  test('a machine that was restored from a snapshot is a new start, in a new session', async () => {
    const a = await agent('a10', ['10.77.0.20'], '192.0.2.1');
    await a.until('registered');
    const before = performance.now();
    a.dataplane.emit({ type: 'resumed', from: 'snapshot' });
    await a.until(
      'in a new session',
      ({ agent, now }) => (agent.snapshot(now()).sessionMs ?? Number.POSITIVE_INFINITY) < performance.now() - before,
    );
    await a.until('registered');
    assert.equal(a.folder.incarnation()?.run, 2);
    assert.equal(a.driver.fence, null);
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
    const options = { token, port: overlay.port, eids: ['10.77.0.17'], address: '192.0.2.1' };
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

async function problems(agent: TestAgent): Promise<string> {
  return ((await agent.call('GET', '/v1/status')) as { problems: string[] }).problems.join('\n');
}

class TestAgent {
  readonly folder: StateFolder;
  readonly path: string;
  readonly socket: string;
  readonly dataplane = new FakeDataplane();
  readonly driver: AgentDriver;
  readonly identity;
  readonly metrics: AgentMetrics;
  private readonly address: string;
  private admin: { close(): Promise<void> } | undefined;
  private closed = false;

  constructor(
    folder: StateFolder,
    path: string,
    address: string,
    { machine = ME, ...more }: { readonly machine?: Machine; readonly identity?: object } = {},
  ) {
    this.folder = folder;
    this.path = path;
    this.address = address;
    this.socket = `${path}.sock`;
    this.identity = folder.requireIdentity();
    const config = AGENT_CONFIG.parse({ stateDir: folder.path, dataplaneSocket: `${path}-dataplane.sock`, ...more });
    this.driver = new AgentDriver(config, this.identity, folder, 'test', log, () => machine);
    this.metrics = new AgentMetrics(
      () => ({
        certificateNotAfter: this.driver.certificate.notAfter,
        fenced: this.driver.fence !== null,
        mapServerConnected: this.driver.mapServer.connected,
        dataplaneConnected: this.driver.dataplane.connected,
        cache: this.driver.agent.snapshot(this.driver.now()).cache,
        eids: { base: 0, target: 0, live: 1, drain: 0, lost: 0 },
        takenOver: 0,
        peers: 0,
        rlocs: { up: 0, down: 0, unknown: 0 },
        policy: { version: 0, rules: 0 },
      }),
      () => this.driver.dataplane.stats(),
    );
  }

  static async join(
    path: string,
    options: { token: string; port: number; eids: readonly string[]; address: string },
  ): Promise<TestAgent> {
    const folder = new StateFolder(path);
    const { token, port, eids, address } = options;
    const names = eids.length > 0 ? [`vm-${path.split('/').at(-1)}`] : [];
    await join(folder, { url: `https://127.0.0.1:${port}`, token, eids, names, force: false, software: 'test' });
    folder.writeIncarnation({ ...NEVER_RUN, machine: ME });
    return new TestAgent(folder, path, address);
  }

  async listen(): Promise<void> {
    await this.dataplane.listen(`${this.path}-dataplane.sock`);
    this.admin = await startAdminSocket(this.socket, this.driver, this.identity, () => undefined, log);
    this.driver.start(this.metrics);
  }

  async start(): Promise<void> {
    await this.listen();
    await this.dataplane.until(() => this.dataplane.commands.some(({ type }) => type === 'sync-end'));
    const address = parseIpAddress(this.address);
    this.dataplane.emit({ type: 'locators', addresses: [{ address, interface: 'eth0', defaultRoute: true }] });
  }

  call(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<unknown> {
    return callApi({ socketPath: this.socket }, method, path, body === undefined ? {} : { body });
  }

  /** Polls a real condition. */
  async until(what: string, test = CONDITIONS[what as keyof typeof CONDITIONS]): Promise<void> {
    const end = performance.now() + 15_000;
    while (!test?.(this.driver)) {
      if (performance.now() > end) assert.fail(`not ${what} in time: ${await problems(this)}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    this.driver.close();
    await this.admin?.close();
    await this.dataplane.close();
  }
}

const CONDITIONS: Record<string, (driver: AgentDriver) => boolean> = {
  registered: (driver) => driver.mapServer.connected && driver.agent.ownEids().every((own) => own.confirmedAt !== null),
  lost: (driver) => !driver.mapServer.connected,
  fenced: (driver) => driver.fence !== null,
};

const ME: Machine = { machineId: '0'.repeat(32), productUuid: null };

/** The last thing that it was told is that there is nothing. */
function isEmptySync({ commands }: FakeDataplane): boolean {
  const told = commands.map(({ type }) => type).filter((type) => type !== 'stats' && type !== 'peers');
  return told.at(-2) === 'sync-begin' && told.at(-1) === 'sync-end';
}

/** A TCP relay with a fixed port, whose connections can go silent, as those of an address that is gone. */
class Relay {
  connections = 0;
  target: number;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  private silent = new Set<Socket>();

  constructor(target: number) {
    this.target = target;
    this.server = createServer((socket) => {
      this.connections++;
      const upstream = connect(this.target, '127.0.0.1');
      for (const [from, to] of [
        [socket, upstream],
        [upstream, socket],
      ] as const) {
        this.sockets.add(from);
        from.on('data', (chunk) => {
          if (!this.silent.has(from)) to.write(chunk);
        });
        from.on('close', () => {
          if (!this.silent.has(from)) to.destroy();
        });
        from.on('error', () => undefined);
      }
    });
  }

  listen(): Promise<number> {
    return new Promise((resolve) => {
      this.server.listen(0, '127.0.0.1', () => {
        const address = this.server.address();
        resolve(typeof address === 'object' && address !== null ? address.port : 0);
      });
    });
  }

  /** Everything that is open passes nothing any more. */
  swallow(): void {
    this.silent = new Set(this.sockets);
  }

  close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    return new Promise((resolve) => this.server.close(() => resolve()));
  }
}
