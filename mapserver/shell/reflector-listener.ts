/** The sockets of the reflector (`core/reflector.ts`). */
import { isIP } from 'node:net';
import { formatHostPort, parseHostPort } from '../../runtime/host-port.ts';
import type { Log } from '../../runtime/log.ts';
import { Reflector, type ReflectorResult } from '../core/reflector.ts';
import { type DatagramHandler, LispListener } from './lisp-listener.ts';

export interface ReflectorOptions {
  /** HOST:PORT; null: the two ports after each of `control`, as far as they can be had. */
  readonly listen: readonly string[] | null;
  /** Where agents are listened for, as bound. */
  readonly control: readonly string[];
  /** What is served besides: its ports are not to be had, even if they are free so far. */
  readonly others: readonly string[];
  readonly count: (result: ReflectorResult) => void;
  readonly log: Log;
}

export class ReflectorListener {
  private readonly listeners: LispListener[] = [];

  private constructor() {}

  /** @throws UsageError when an address that was asked for cannot be had */
  static async start({ listen, control, others, count, log }: ReflectorOptions): Promise<ReflectorListener> {
    const started = new ReflectorListener();
    const reflector = new Reflector();
    for (const address of listen ?? besides(control, others)) {
      try {
        const handle: DatagramHandler = (from, bytes) => {
          const { result, answer } = reflector.handleDatagram(from, bytes, performance.now());
          count(result);
          if (answer !== null) listener.send(from, answer);
        };
        const listener = await LispListener.start([address], handle, 'the reflector (reflectorListen)');
        started.listeners.push(listener);
      } catch (err) {
        if (listen !== null) {
          await started.close();
          throw err;
        }
        // Nobody asked for it, and agents do without.
        log.warn({ address, err }, 'no reflector at this address');
      }
    }
    return started;
  }

  /** As bound. */
  get addresses(): readonly string[] {
    return this.listeners.flatMap(({ addresses }) => addresses);
  }

  /** What agents are told: each once, two at most. */
  get ports(): readonly number[] {
    return [...new Set(this.addresses.map((address) => parseHostPort(address).port))].slice(0, 2);
  }

  async close(): Promise<void> {
    await Promise.all(this.listeners.map((listener) => listener.close()));
  }
}

function besides(control: readonly string[], others: readonly string[]): readonly string[] {
  const reserved = new Set(others.map((address) => parseHostPort(address).port));
  return control.flatMap((address) => {
    const { host, port } = parseHostPort(address);
    if (isIP(host) === 0) return [];
    return [port + 1, port + 2]
      .filter((each) => each < 65_536 && !reserved.has(each))
      .map((each) => formatHostPort(host, each));
  });
}
