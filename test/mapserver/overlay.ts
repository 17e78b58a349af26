/** A map server in this process, on ports of its own, and agents that talk to it over real TLS. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WebSocket } from 'ws';
import { certificateRequest } from '../../agent/shell/enrolment.ts';
import { type AgentKeys, generateKeys, type Identity } from '../../agent/shell/identity.ts';
import { CONFIG, type MapServerSettings } from '../../mapserver/config.ts';
import { adminSocketPath, type RunningMapServer, startMapServer } from '../../mapserver/main.ts';
import type { KeyAndCertificate } from '../../mapserver/shell/certificate-authority.ts';
import { initOverlay } from '../../mapserver/shell/overlay-files.ts';
import { hostPrefix, type IpAddress, type IpPrefix, parseIpAddress } from '../../proto/address.ts';
import { CAPABILITY } from '../../proto/capability.ts';
import { DEFAULT_INSTANCE, type Eid, parseEid, prefixEid } from '../../proto/eid.ts';
import { agentAddressOf, xtrIdOf } from '../../proto/identity.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { decodeLispMessage, encodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';
import { mapNotifyAck, mappingsOf, mapRegister, subscribeRequest } from '../../proto/lisp/native.ts';
import type { Generation, Mapping } from '../../proto/mapping.ts';
import { type AgentPolicy, decodePolicyFrame, PolicyAssembly } from '../../proto/policy.ts';
import { minutes } from '../../proto/time.ts';
import { callApi } from '../../runtime/http-api.ts';
import { PATIENCE_MS } from '../lab/wait.ts';

export class TestOverlay {
  readonly dataDir = mkdtempSync(join(tmpdir(), 'stayput-mapserver-'));
  private readonly overrides: object;
  private readonly agents: TestAgent[] = [];
  private running: RunningMapServer | undefined;

  private readonly authority: KeyAndCertificate | undefined;

  constructor(overrides: object = {}, authority?: KeyAndCertificate) {
    this.overrides = overrides;
    this.authority = authority;
  }

  /** The data folder, as `start` needs it. */
  init(): void {
    initOverlay(
      this.dataDir,
      {
        instance: DEFAULT_INSTANCE,
        zone: 'stayput.internal',
        prefixes: ['10.77.0.0/16' as IpPrefix],
        hosts: ['127.0.0.1'],
        port: 4342,
      },
      Date.now(),
      this.authority,
    );
  }

  /** `read`: the settings, at the start and whenever they are read again. */
  async start(read: () => MapServerSettings = () => this.settings()): Promise<void> {
    this.init();
    this.running = await startMapServer(read(), read);
  }

  private settings(): MapServerSettings {
    return CONFIG.parse({
      dataDir: this.dataDir,
      listen: '127.0.0.1:0',
      metricsListen: '127.0.0.1:0',
      logLevel: 'silent',
      ...this.overrides,
    });
  }

  get port(): number {
    return Number(this.running?.listen[0]?.split(':')[1]);
  }

  /** HOST:PORT of LISP over UDP. */
  get lispAddress(): string {
    return this.running?.lispListen[0] ?? '';
  }

  get metricsUrl(): string {
    return `http://127.0.0.1:${this.running?.metricsPort}/metrics`;
  }

  async metrics(): Promise<string> {
    return (await fetch(this.metricsUrl)).text();
  }

  /** How often a limit was reached. */
  limitHits(limit: string): Promise<number> {
    return this.value(`limit_hits_total{limit="${limit}"}`);
  }

  gauge(name: string, state: string): Promise<number> {
    return this.value(`${name}{state="${state}"}`);
  }

  rejections(reason: string): Promise<number> {
    return this.value(`rejected_total{reason="${reason}"}`);
  }

  private async value(series: string): Promise<number> {
    const start = `stayput_mapserver_${series} `;
    const line = (await this.metrics()).split('\n').find((each) => each.startsWith(start));
    return Number(line?.slice(start.length) ?? 0);
  }

  async admin<T>(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<T> {
    const target = { socketPath: adminSocketPath(this.dataDir) };
    return (await callApi(target, method, path, {
      timeoutMs: PATIENCE_MS,
      ...(body === undefined ? {} : { body }),
    })) as T;
  }

  async token(grant: { eids?: string[]; names?: string[]; uses?: number; expiresInMs?: number }): Promise<string> {
    return (await this.admin<{ token: string }>('POST', '/v1/tokens', grant)).token;
  }

  async ca(): Promise<string> {
    const target = { host: '127.0.0.1', port: this.port };
    return ((await callApi(target, 'GET', '/v1/ca', { timeoutMs: PATIENCE_MS })) as { ca: string }).ca;
  }

  async enrol(body: object, ca?: string): Promise<Enrolled> {
    const target = { host: '127.0.0.1', port: this.port, ...(ca === undefined ? {} : { ca }) };
    return (await callApi(target, 'POST', '/v1/enrol', { body, timeoutMs: PATIENCE_MS })) as Enrolled;
  }

  /** An agent with a certificate, and a session. */
  async agent(grant: { eids?: string[]; names?: string[] }): Promise<TestAgent> {
    const agent = await TestAgent.enrol(this, await this.token(grant));
    await agent.connect();
    this.agents.push(agent);
    return agent;
  }

  /** One that is not connected. */
  enrolled(grant: { eids?: string[]; names?: string[] }): Promise<TestAgent> {
    return this.token(grant).then((token) => TestAgent.enrol(this, token));
  }

  async stop(): Promise<void> {
    for (const agent of this.agents.splice(0)) agent.close();
    await this.running?.close();
    this.running = undefined;
  }

  async remove(): Promise<void> {
    await this.stop();
    rmSync(this.dataDir, { recursive: true, force: true });
  }
}

export class TestAgent {
  readonly keys: AgentKeys;
  readonly certificate: string;
  readonly ca: string;
  readonly welcome: Promise<Welcome>;
  webSocket: WebSocket | undefined;
  closed: { code: number; reason: string } | undefined;
  private readonly overlay: Pick<TestOverlay, 'port'>;
  private welcomed: (value: Welcome) => void = () => {};
  private readonly inbox: LispMessage[] = [];
  private readonly notices: Notice[] = [];
  private readonly policies: AgentPolicy[] = [];
  private assembly = new PolicyAssembly();
  private readonly waiting: (() => void)[] = [];
  private lastNonce = 0n;

  private constructor(overlay: Pick<TestOverlay, 'port'>, keys: AgentKeys, certificate: string, ca: string) {
    this.overlay = overlay;
    this.keys = keys;
    this.certificate = certificate;
    this.ca = ca;
    this.welcome = new Promise((resolve) => {
      this.welcomed = resolve;
    });
  }

  static async enrol(overlay: TestOverlay, token: string, keys = generateKeys()): Promise<TestAgent> {
    const ca = await overlay.ca();
    const answer = await overlay.enrol(enrolment(token, keys), ca);
    return new TestAgent(overlay, keys, answer.certificate, ca);
  }

  /** One that joined by itself. */
  static of(overlay: Pick<TestOverlay, 'port'>, identity: AgentKeys & Pick<Identity, 'certificate' | 'ca'>): TestAgent {
    return new TestAgent(overlay, identity, identity.certificate, identity.ca);
  }

  get xtrId() {
    return xtrIdOf(this.keys.tunnelKey);
  }

  get address(): IpAddress {
    return agentAddressOf(this.keys.tunnelKey);
  }

  async connect(tls: object = {}): Promise<void> {
    this.closed = undefined;
    this.assembly = new PolicyAssembly();
    const webSocket = new WebSocket(`wss://127.0.0.1:${this.overlay.port}/lisp`, 'lisp.stayput', {
      ca: this.ca,
      cert: this.certificate,
      key: this.keys.tlsPrivateKey,
      perMessageDeflate: false,
      headers: { 'stayput-capability': String(CAPABILITY) },
      allowPartialTrustChain: true,
      ...tls,
    } as WebSocket.ClientOptions);
    this.webSocket = webSocket;
    webSocket.on('message', (data: Buffer, isBinary) => {
      if (!isBinary) return this.hear(JSON.parse(data.toString()));
      const message = decodeLispMessage(data);
      // What arrives for requests is answered by the test; publications are acknowledged.
      if (message.type === 'map-notify' && message.nonce >= 1n << 63n) this.send(mapNotifyAck(message.nonce));
      this.inbox.push(message);
      for (const wake of this.waiting.splice(0)) wake();
    });
    webSocket.on('close', (code, reason) => {
      this.closed = { code, reason: reason.toString() };
      for (const wake of this.waiting.splice(0)) wake();
    });
    await new Promise<void>((resolve, reject) => {
      webSocket.once('open', resolve);
      webSocket.once('error', reject);
      webSocket.once('unexpected-response', (_request, response) => {
        let text = '';
        response.on('data', (chunk) => {
          text += chunk;
        });
        response.on('end', () => reject(new Error(`${response.statusCode}: ${text.trim()}`)));
      });
    });
  }

  send(message: LispMessage): void {
    this.webSocket?.send(encodeLispMessage(message));
  }

  /** The next message that fits, from those not taken yet. */
  async next(fits: (message: LispMessage) => boolean = () => true): Promise<LispMessage> {
    for (;;) {
      const index = this.inbox.findIndex(fits);
      if (index >= 0) return this.inbox.splice(index, 1)[0]!;
      if (this.closed !== undefined) throw new Error(`closed: ${this.closed.code} ${this.closed.reason}`);
      await this.woken();
    }
  }

  async untilClosed(): Promise<{ code: number; reason: string }> {
    while (this.closed === undefined) await this.woken();
    return this.closed;
  }

  /** The next text about authorities that fits. */
  async notice(fits: (notice: Notice) => boolean): Promise<Notice> {
    for (;;) {
      const index = this.notices.findIndex(fits);
      if (index >= 0) return this.notices.splice(index, 1)[0]!;
      if (this.closed !== undefined) throw new Error(`closed: ${this.closed.code} ${this.closed.reason}`);
      await this.woken();
    }
  }

  /** The next policy, when all parts of it are there. */
  async policy(): Promise<AgentPolicy> {
    for (;;) {
      const policy = this.policies.shift();
      if (policy !== undefined) return policy;
      if (this.closed !== undefined) throw new Error(`closed: ${this.closed.code} ${this.closed.reason}`);
      await this.woken();
    }
  }

  private hear(text: Welcome | Notice): void {
    if (text.type === 'welcome') this.welcomed(text as Welcome);
    const policy = text.type === 'policy' ? this.assembly.add(decodePolicyFrame(text)) : undefined;
    if (policy !== undefined) this.policies.push(policy);
    if (text.type === 'authorities') this.notices.push(text as Notice);
    for (const wake of this.waiting.splice(0)) wake();
  }

  /** Registers and returns the records of the Map-Notify. */
  async register(...mappings: Mapping[]): Promise<Mapping[]> {
    const used = nonce(++this.lastNonce);
    this.send(mapRegister({ nonce: used, xtrId: this.xtrId, mappings }));
    return mappingsOf(await this.next((message) => 'nonce' in message && message.nonce === used));
  }

  async subscribe(text: string): Promise<LispMessage> {
    const used = nonce(++this.lastNonce);
    const { xtrId, address } = this;
    this.send(subscribeRequest({ nonce: used, xtrId, eid: parseEid(text), itr: address, subscribe: true }));
    return this.next((message) => 'nonce' in message && message.nonce === used);
  }

  /** The next publication. */
  async push(): Promise<Mapping[]> {
    return mappingsOf(await this.next((message) => message.type === 'map-notify' && message.nonce >= 1n << 63n));
  }

  mapping(text: string, fields: Partial<Mapping> = {}): Mapping {
    const eid: Eid = text === 'agent' ? prefixEid(DEFAULT_INSTANCE, hostPrefix(this.address)) : parseEid(text);
    return {
      eid,
      ttl: minutes(3),
      action: 'no-action',
      generation: 0 as Generation,
      owner: this.xtrId,
      tunnelKey: this.keys.tunnelKey,
      locators:
        eid.kind === 'name' ? [] : [{ address: parseIpAddress('192.0.2.1'), port: 4341, priority: 1, weight: 100 }],
      names: [],
      targets: eid.kind === 'name' ? [parseIpAddress('10.77.0.5')] : [],
      ...fields,
    };
  }

  close(): void {
    this.webSocket?.terminate();
  }

  private woken(): Promise<void> {
    return new Promise((resolve) => this.waiting.push(resolve));
  }
}

export interface Enrolled {
  readonly certificate: string;
  readonly ca: string;
  readonly xtrId: string;
  readonly presharedKey: string;
  readonly eids: string[];
  readonly names: string[];
}

interface Notice {
  readonly type: string;
  readonly authorities: readonly string[];
}

interface Welcome {
  readonly type: string;
  readonly overlay: string[];
  readonly observed: { readonly address: string; readonly port: number };
}

export function enrolment(token: string, keys: AgentKeys, more: object = {}): object {
  return {
    token,
    csr: certificateRequest(keys.tlsPrivateKey, xtrIdOf(keys.tunnelKey)),
    tunnelKey: keys.tunnelKey,
    eids: [],
    names: [],
    software: 'test',
    ...more,
  };
}
