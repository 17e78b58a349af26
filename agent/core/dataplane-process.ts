/**
 * The process of the data plane that is attached: which one it is, what it can do, and what it was configured with.
 *
 * Its epoch grows with every new process, and is kept on disk with the process's name: peers refuse handshakes of an
 * epoch that is not newer. A process that is attached to again keeps its epoch, and with it its sessions.
 */
import type { IpPrefix } from '../../proto/address.ts';
import { POLICY_CAPABILITY } from '../../proto/capability.ts';
import type { DataplaneEvent, HelloReply } from '../../proto/dataplane/messages.ts';
import { eidSpace } from '../../proto/overlay.ts';
import type { Outbox } from './outbox.ts';
import type { AgentIdentity } from './registrar.ts';

/** The epoch that the data plane process `process` was configured with, or has raised its own to. */
export interface SavedDataplane {
  readonly process: string | null;
  readonly epoch: number;
}

type Resumed = Extract<DataplaneEvent, { readonly type: 'resumed' }>;

/** What it is configured with besides. */
export interface DataplaneSettings {
  /** X25519 private key and the overlay's PSK, base64; only passed on. */
  readonly privateKey: string;
  readonly presharedKey: string;
  readonly listenPort: number;
  readonly mtu: number;
}

export class DataplaneProcess {
  private readonly settings: DataplaneSettings;
  private readonly identity: AgentIdentity;
  private readonly outbox: Outbox;
  private attached: HelloReply | null = null;
  /** None has been attached to since this agent started. */
  private isFirst = true;
  private saved: SavedDataplane;

  constructor(saved: SavedDataplane, settings: DataplaneSettings, identity: AgentIdentity, outbox: Outbox) {
    this.saved = saved;
    this.settings = settings;
    this.identity = identity;
    this.outbox = outbox;
  }

  /** What it said when it was attached; null while there is none. */
  get hello(): HelloReply | null {
    return this.attached;
  }

  get enforcesPolicy(): boolean {
    return this.attached !== null && this.attached.capability >= POLICY_CAPABILITY;
  }

  /**
   * `wallSeconds`: seconds since 1970, so that a lost state file does not make the epoch smaller. True: it goes on with
   * what an agent before this one told it, the last of which may not be on disk.
   */
  handleHello(hello: HelloReply, wallSeconds: number): boolean {
    const { process, epoch } = this.saved;
    const isKnown = hello.configured && hello.process === process;
    const goesOn = this.isFirst && isKnown;
    this.attached = hello;
    this.isFirst = false;
    if (!isKnown) this.change({ process: hello.process, epoch: Math.max(epoch + 1, Math.floor(wallSeconds)) });
    return goesOn;
  }

  handleLost(): void {
    this.attached = null;
  }

  /** Its machine was interrupted, for which it may have raised its epoch by itself. The next process begins above that. */
  handleResumed({ from, epoch }: Resumed): void {
    const least = from === 'snapshot' ? this.saved.epoch + 1 : this.saved.epoch;
    const raised = Math.max(epoch ?? least, this.saved.epoch);
    if (raised > this.saved.epoch) this.change({ ...this.saved, epoch: raised });
  }

  configure(overlay: readonly IpPrefix[]): void {
    const { privateKey, presharedKey, listenPort, mtu } = this.settings;
    const { instance, agentAddress } = this.identity;
    const { epoch } = this.saved;
    const keys = { privateKey, presharedKey, epoch };
    const where = { instance, agentAddress, listenPort, mtu, overlay: eidSpace(overlay) };
    this.outbox.command({ type: 'configure', ...keys, ...where });
  }

  save(): SavedDataplane {
    return this.saved;
  }

  private change(saved: SavedDataplane): void {
    this.saved = saved;
    this.outbox.persist('dataplane');
  }
}
