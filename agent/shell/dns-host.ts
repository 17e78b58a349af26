/**
 * `stayput dns host`: makes this host's programs ask the agent for names, and puts everything back when it stops or
 * when the agent does not answer. A process of its own, since this needs root and the agent does not. It believes the
 * agent nothing but names and addresses.
 */
import { basename, dirname } from 'node:path';
import { StayputError, UsageError } from '../../proto/errors.ts';
import { Backoff } from '../../runtime/backoff.ts';
import type { Log } from '../../runtime/log.ts';
import { Shutdown } from '../../runtime/shutdown.ts';
import type { AgentConfig } from '../config.ts';
import { type GateVerdict, HostGate } from '../core/dns-host-gate.ts';
import { type HostFacts, type HostMethod, ownerOf } from '../core/dns-host-owner.ts';
import { RESOLV_CONF, RESOLVED_FOLDER, readHostFacts } from './dns-host-facts.ts';
import { giveResolvConfBack, takeResolvConf } from './dns-host-file.ts';
import { PauseAfterFailure } from './dns-host-pause.ts';
import { addRecord, removeRecord } from './dns-host-resolvconf.ts';
import { configureLink, revertLink } from './dns-host-resolved.ts';
import { type DnsStatus, plainServersOf, readDnsStatus, serversOf, tunnelInterface } from './dns-host-target.ts';
import { askDns } from './dns-question.ts';
import { FolderWatch } from './folder-watch.ts';

/** Until SIGTERM or SIGINT. @throws UsageError when it may not */
export async function runDnsHost(config: AgentConfig, log: Log): Promise<void> {
  const { host: mode } = config.dns;
  if (mode === 'off') {
    log.info('dns.host is off: nothing to do');
    return;
  }
  if (process.getuid?.() !== 0) throw new UsageError('what this host asks for names is changed by root only');
  const shutdown = new Shutdown();
  const host = new HostDns(mode, config.socket, log);
  shutdown.add('host DNS', () => host.close());
  host.start();
  await shutdown.onSignals(log);
}

/** Puts back what an earlier process left, and says what. @throws StayputError */
export async function restoreHostDns(): Promise<readonly HostMethod[]> {
  const { resolvconf } = readHostFacts();
  const restored: HostMethod[] = [];
  if (await revertLink()) restored.push('resolved');
  if (await removeRecord(resolvconf)) restored.push('resolvconf');
  if (giveResolvConfBack(RESOLV_CONF)) restored.push('file');
  return restored;
}

class HostDns {
  readonly #mode: Exclude<AgentConfig['dns']['host'], 'off'>;
  readonly #socket: string;
  readonly #log: Log;
  readonly #gate = new HostGate();
  readonly #folders: FolderWatch;
  readonly #pause = new PauseAfterFailure(new Backoff(POLL, MAX_PAUSE, Math.random));
  #status: DnsStatus | undefined;
  #method: HostMethod | undefined;
  #because: string | undefined;
  #problem: string | undefined;
  #checkedAt = Number.NEGATIVE_INFINITY;
  #soon: NodeJS.Timeout | undefined;
  #poll: NodeJS.Timeout | undefined;
  /** One thing after the other. */
  #work: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(mode: Exclude<AgentConfig['dns']['host'], 'off'>, socket: string, log: Log) {
    this.#mode = mode;
    this.#socket = socket;
    this.#log = log;
    this.#folders = new FolderWatch((folder, name) => {
      if (folder === RESOLVED_FOLDER || name === basename(RESOLV_CONF)) this.#noticed();
    });
  }

  start(): void {
    const turn = (): void => {
      this.#enqueue(async () => {
        this.#folders.follow(FOLDERS);
        await this.#probe();
        if (!this.#pause.lasts(this.#circumstances(), performance.now())) await this.#settle();
        if (!this.#closed) this.#poll = setTimeout(turn, POLL);
      });
    };
    turn();
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#poll);
    clearTimeout(this.#soon);
    this.#folders.close();
    await this.#work;
    await this.#putBack();
  }

  #noticed(): void {
    this.#soon ??= setTimeout(() => {
      this.#soon = undefined;
      this.#checkedAt = Number.NEGATIVE_INFINITY;
      this.#enqueue(() => this.#settle());
    }, COALESCE);
  }

  /** All that decides what is done, but what the watched folders tell of. */
  #circumstances(): string {
    const status = this.#status;
    const tunnel = status === undefined ? undefined : tunnelInterface(status);
    return JSON.stringify([this.#gate.verdict(performance.now()).host, status, tunnel]);
  }

  #enqueue(act: () => Promise<void>): void {
    this.#work = this.#work.then(async () => {
      if (!this.#closed) await act();
    });
  }

  async #probe(): Promise<void> {
    let answered = false;
    try {
      this.#status = await readDnsStatus(this.#socket, PROBE_TIMEOUT);
    } catch {
      // It may be busy with something else; what counts is whether it answers questions.
    }
    if (this.#status !== undefined) {
      const { zone } = this.#status;
      const outcomes = await Promise.all(
        serversOf(this.#status).map((server) => askDns(server, zone, 'SOA', PROBE_TIMEOUT)),
      );
      answered = outcomes.some((outcome) => outcome?.rcode === 'NOERROR');
    }
    this.#gate.handleProbe(answered, performance.now());
  }

  /** Makes the host as it is meant to be at this moment. */
  async #settle(): Promise<void> {
    const verdict = this.#gate.verdict(performance.now());
    const status = this.#status;
    try {
      if (verdict.host === 'asks-agent' && status !== undefined) await this.#apply(status);
      else {
        this.#explain(verdict);
        await this.#putBack();
      }
      this.#problem = undefined;
      this.#pause.handleSuccess();
    } catch (error) {
      if (!(error instanceof StayputError)) throw error;
      this.#pause.handleFailure(this.#circumstances(), performance.now());
      if (error.message === this.#problem) return;
      this.#problem = error.message;
      this.#log.error({ err: error }, 'this host cannot be made to ask the agent');
    }
  }

  async #apply(status: DnsStatus): Promise<void> {
    const facts = readHostFacts();
    const { owner, method: best, why } = ownerOf(facts);
    const method = this.#mode === 'auto' ? best : this.#mode;
    const begins = method !== this.#method;
    if (begins) await this.#putBack();
    const renewed = await this.#carryOut(method, status, facts);
    if (begins) {
      this.#method = method;
      this.#because = undefined;
      this.#log.info({ method, owner, reason: why }, 'this host asks the agent');
      return;
    }
    if (!renewed) return;
    this.#log.info({ method }, 'settings of this host were gone and are made again');
    if (method === 'resolved') return;
    this.#gate.handleOverwritten(performance.now());
    await this.#settle();
  }

  /** True when something had to be set that another program changed. */
  #carryOut(method: HostMethod, status: DnsStatus, facts: HostFacts): Promise<boolean> | boolean {
    if (method === 'resolved') {
      const now = performance.now();
      if (method === this.#method && now - this.#checkedAt < LINK_CHECK) return false;
      this.#checkedAt = now;
      return configureLink(status);
    }
    const servers = plainServersOf(status);
    if (servers.length === 0) {
      throw new StayputError(
        'STAYPUT_DNS_PORT',
        'resolv.conf knows no ports: dns.listen needs an address with port 53',
      );
    }
    if (method === 'resolvconf') return addRecord(RESOLV_CONF, facts.resolvconf, servers, status.zone);
    return takeResolvConf(RESOLV_CONF, servers, status.zone) === 'replaced';
  }

  /** Also what an earlier process left. */
  async #putBack(): Promise<void> {
    const restored = await restoreHostDns();
    this.#method = undefined;
    if (restored.length > 0) this.#log.info({ method: restored.join() }, 'this host asks its former resolvers again');
  }

  #explain(verdict: GateVerdict): void {
    if (verdict.host === 'asks-agent' || verdict.because === this.#because) return;
    this.#because = verdict.because;
    if (verdict.because === 'overwritten') {
      this.#log.error('another program insists on its own resolv.conf and gets it for ten minutes');
    } else this.#log.warn('the agent does not answer DNS: this host asks its former resolvers');
  }
}

const FOLDERS = [dirname(RESOLV_CONF), RESOLVED_FOLDER];
/** Milliseconds. */
const POLL = 1000;
/** Between attempts of what fails. */
const MAX_PAUSE = 60_000;
const PROBE_TIMEOUT = 1000;
/** Costs two processes each time. */
const LINK_CHECK = 10_000;
/** As a file is rewritten in several steps. */
const COALESCE = 5;
