/**
 * The UDP ports and raw sockets of one stage, and its turns with the ports that there is one of.
 *
 * A check that reached its time limit goes on for a while after its stage was cleared. What it comes by then goes back
 * at once, so that nobody waits for a turn that has no end.
 */
import { NotTried } from '../check.ts';
import type { Exclusive } from '../exclusive.ts';
import type { Pacer } from '../pacer.ts';
import { RawUdp } from './raw-udp.ts';
import { UdpPort, type UdpTarget } from './udp-port.ts';

export class StagePorts {
  private readonly pacer: Pacer;
  private readonly address: string;
  private readonly endings: (() => void)[] = [];
  private closed = false;

  /** `address`: the own one. */
  constructor(pacer: Pacer, address: string) {
    this.pacer = pacer;
    this.address = address;
  }

  /** Any port. @throws an error of the system @throws NotTried after `close` */
  open(target: UdpTarget): Promise<UdpPort> {
    return this.openAt(target, 0);
  }

  /** The port that `turns` is about, when it is this stage's turn. @throws NotTried when it is taken, or after `close` */
  async openInTurn(turns: Exclusive, target: UdpTarget, port: number): Promise<UdpPort> {
    this.atEnd(await turns.take());
    try {
      return await this.openAt(target, port);
    } catch (error) {
      throw new NotTried(`It needs UDP port ${port} of ${this.address} (${(error as Error).message}).`);
    }
  }

  /** Beside an own port of this number. @throws NotTried without `program` or the right to it, or after `close` */
  openRaw(program: string | undefined, port: number): Promise<RawUdp> {
    return this.kept(() => RawUdp.open(program, this.address, port, this.pacer));
  }

  /** What was opened last goes first, so a port is closed before its turn ends. */
  close(): void {
    this.closed = true;
    for (const end of this.endings.reverse()) end();
  }

  private openAt(target: UdpTarget, port: number): Promise<UdpPort> {
    return this.kept(() => UdpPort.open(target, this.pacer, { address: this.address, port }));
  }

  /** Open until the stage is cleared. @throws NotTried after that */
  private async kept<T extends { close(): void }>(open: () => Promise<T>): Promise<T> {
    if (this.closed) throw new NotTried(CLEARED);
    const opened = await open();
    this.atEnd(() => opened.close());
    return opened;
  }

  /** `end` comes with the end of the stage, or at once. @throws NotTried then */
  private atEnd(end: () => void): void {
    if (!this.closed) {
      this.endings.push(end);
      return;
    }
    end();
    throw new NotTried(CLEARED);
  }
}

const CLEARED = 'Its stage was cleared meanwhile';
