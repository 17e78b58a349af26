import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { after, afterEach, before } from 'node:test';
import { pino } from 'pino';
import { AGENT_CONFIG } from '../../agent/config.ts';
import { type Machine, NEVER_RUN } from '../../agent/core/incarnation.ts';
import { startAdminSocket } from '../../agent/shell/admin-socket.ts';
import { AgentDriver } from '../../agent/shell/driver.ts';
import { join } from '../../agent/shell/enrolment.ts';
import { StateFolder } from '../../agent/shell/identity.ts';
import { AgentMetrics } from '../../agent/shell/metrics.ts';
import { parseIpAddress } from '../../proto/address.ts';
import { callApi } from '../../runtime/http-api.ts';
import { LabError } from '../lab/lab-error.ts';
import { waitFor } from '../lab/wait.ts';
import { TestOverlay } from '../mapserver/overlay.ts';
import { FakeDataplane } from './fake-dataplane.ts';

export const log = pino({ level: 'silent' });

/** Agents of an overlay, for one `describe`: they end with each test, the overlay and the files with the last. */
export function agentProcesses() {
  // What a silent connection is replaced by comes of what agents do, not of heartbeats that stay away.
  const overlay = new TestOverlay({ heartbeatMs: 60_000 });
  const folder = mkdtempSync(joinPath(tmpdir(), 'stayput-agent-'));
  const agents: TestAgent[] = [];
  const closers: (() => unknown)[] = [];
  let token = '';

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

  return { overlay, folder, agents, closers, agent, token: () => token };
}

export class TestAgent {
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

  /** @throws LabError with the problems that it has */
  async until(what: string, test = CONDITIONS[what as keyof typeof CONDITIONS]): Promise<void> {
    try {
      await waitFor(what, () => test?.(this.driver), { intervalMs: 5 });
    } catch (cause) {
      throw new LabError(`not ${what}: ${await problems(this)}`, { cause });
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

export async function problems(agent: TestAgent): Promise<string> {
  return ((await agent.call('GET', '/v1/status')) as { problems: string[] }).problems.join('\n');
}

const CONDITIONS: Record<string, (driver: AgentDriver) => boolean> = {
  registered: (driver) => driver.mapServer.connected && driver.agent.ownEids().every((own) => own.confirmedAt !== null),
  lost: (driver) => !driver.mapServer.connected,
  fenced: (driver) => driver.fence !== null,
};

export const ME: Machine = { machineId: '0'.repeat(32), productUuid: null };
