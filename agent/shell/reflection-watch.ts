/** Asks the map server's reflector in the background, once for each session: a host that moved has a new one. */
import type { IpAddress } from '../../proto/address.ts';
import type { Log } from '../../runtime/log.ts';
import { askReflector, type UdpView } from './reflection.ts';

/** `passes`: null when nobody was asked. */
export interface UdpState {
  readonly passes: boolean | null;
  readonly view: UdpView | null;
}

export class ReflectionWatch {
  state: UdpState = UNKNOWN;
  private readonly onView: (view: UdpView) => void;
  private readonly log: Log;
  private readonly ask: typeof askReflector;
  private asked = 0;

  constructor(onView: (view: UdpView) => void, log: Log, ask = askReflector) {
    this.onView = onView;
    this.log = log;
    this.ask = ask;
  }

  /** `address`: where the map server is; `ports`: of its reflector, none when it has none. */
  async handleSession(address: IpAddress | null, ports: readonly number[]): Promise<void> {
    const turn = ++this.asked;
    if (address === null || ports.length === 0) {
      this.state = UNKNOWN;
      return;
    }
    const view = await this.ask(address, ports);
    // An answer about the place before this one says nothing of this one.
    if (turn !== this.asked) return;
    const { passes } = this.state;
    this.state = { passes: view !== null, view };
    if (view !== null) this.onView(view);
    else if (passes !== false) this.log.warn({ address, ports }, 'the map server does not answer over UDP');
  }

  close(): void {
    this.asked += 1;
  }
}

const UNKNOWN: UdpState = { passes: null, view: null };
