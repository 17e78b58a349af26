/**
 * The UDP ports of one stage, and its turns with those that there is one of.
 *
 * A check that reached its time limit goes on for a while after its stage was cleared. What it comes by then goes back
 * at once, so that nobody waits for a turn that has no end.
 */
import { NotTried } from '../check.ts';
import type { Exclusive } from '../exclusive.ts';
import type { Pacer } from '../pacer.ts';
import { UdpPort, type UdpTarget } from './udp-port.ts';

export class StagePorts {
  private readonly pacer: Pacer;
  private readonly address: string;
  private readonly ports: UdpPort[] = [];
  private readonly endsOfTurns: (() => void)[] = [];
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
    const end = await turns.take();
    if (this.closed) end();
    else this.endsOfTurns.push(end);
    try {
      return await this.openAt(target, port);
    } catch (error) {
      throw new NotTried(`It needs UDP port ${port} of ${this.address} (${(error as Error).message}).`);
    }
  }

  close(): void {
    this.closed = true;
    for (const port of this.ports) port.close();
    for (const end of this.endsOfTurns) end();
  }

  private async openAt(target: UdpTarget, port: number): Promise<UdpPort> {
    if (this.closed) throw new NotTried(CLEARED);
    const opened = await UdpPort.open(target, this.pacer, { address: this.address, port });
    if (this.closed) {
      opened.close();
      throw new NotTried(CLEARED);
    }
    this.ports.push(opened);
    return opened;
  }
}

const CLEARED = 'Its stage was cleared meanwhile';
