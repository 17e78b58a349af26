/**
 * Tells secondaries of new serials (RFC 1996).
 *
 * For each secondary and zone at most one NOTIFY is under way, of the newest serial. It is repeated after 1, 2, 4, 8 and
 * 16 s until it is answered; then the secondary has to find out by itself, by the refresh time of the SOA, or hears of
 * the next serial. An answer counts if it has the ID, and the signature where the secondary has a key: whoever could
 * forge it could keep the secondary from hearing.
 */
import { CLASS, FLAG, OPCODE } from '../../proto/dns/header.ts';
import { TYPE } from '../../proto/dns/message.ts';
import { decodeSections, encodeSections } from '../../proto/dns/sections.ts';
import { signRequest, type TsigKey, type TsigSession } from '../../proto/dns/tsig.ts';
import { DecodeError } from '../../proto/errors.ts';
import type { Instant, Millis, WallClock } from '../../proto/time.ts';
import type { ZoneRecords } from './zone-records.ts';

export interface Secondary {
  /** HOST:PORT. */
  readonly address: string;
  readonly key: TsigKey | undefined;
}

export type NotifierOutput =
  | { readonly kind: 'notify'; readonly address: string; readonly packet: Uint8Array }
  | { readonly kind: 'notified'; readonly address: string; readonly result: 'answered' | 'unanswered' };

export interface NotifierOptions {
  readonly secondaries: readonly Secondary[];
  /** Unpredictable, 0 to 65535. */
  readonly randomId: () => number;
  readonly wallClock: () => WallClock;
}

export class ZoneNotifier {
  private readonly options: NotifierOptions;
  private readonly flights = new Map<string, Flight>();
  private readonly outputs: NotifierOutput[] = [];

  constructor(options: NotifierOptions) {
    this.options = options;
  }

  handleSerial(zone: ZoneRecords, now: Instant): void {
    for (const secondary of this.options.secondaries) {
      const key = `${secondary.address} ${zone.origin}`;
      this.flights.delete(key);
      this.send(key, { secondary, zone, tries: 0 }, now);
    }
  }

  /** What arrived from the address of a secondary. */
  handleAnswer(address: string, bytes: Uint8Array): void {
    try {
      const message = decodeSections(bytes);
      if ((message.flags & FLAG.qr) === 0 || message.opcode !== OPCODE.notify) return;
      for (const [key, flight] of this.flights) {
        if (flight.secondary.address !== address || flight.id !== message.id) continue;
        const { session } = flight;
        if (session !== undefined && !session.verifies(bytes, message, this.options.wallClock())) continue;
        this.flights.delete(key);
        this.outputs.push({ kind: 'notified', address, result: 'answered' });
      }
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
    }
  }

  handleTimeout(now: Instant): void {
    for (const [key, flight] of [...this.flights]) {
      if (now < flight.retryAt) continue;
      this.flights.delete(key);
      if (flight.tries < TRIES) this.send(key, flight, now);
      else this.outputs.push({ kind: 'notified', address: flight.secondary.address, result: 'unanswered' });
    }
  }

  pollTimeout(): Instant | undefined {
    if (this.flights.size === 0) return undefined;
    return Math.min(...[...this.flights.values()].map(({ retryAt }) => retryAt));
  }

  pollOutput(): NotifierOutput | undefined {
    return this.outputs.shift();
  }

  private send(
    key: string,
    { secondary, zone, tries }: Pick<Flight, 'secondary' | 'zone' | 'tries'>,
    now: Instant,
  ): void {
    const id = this.options.randomId();
    const plain = encodeSections({
      id,
      flags: FLAG.aa,
      opcode: OPCODE.notify,
      rcode: 0,
      questions: [{ name: zone.origin, type: TYPE.soa, class: CLASS.in }],
      answers: [zone.soa()],
      authorities: [],
      additionals: [],
    });
    const signed =
      secondary.key === undefined ? undefined : signRequest(plain, secondary.key, this.options.wallClock());
    const retryAt = now + FIRST_RETRY * 2 ** tries;
    this.flights.set(key, { secondary, zone, id, session: signed?.session, tries: tries + 1, retryAt });
    this.outputs.push({ kind: 'notify', address: secondary.address, packet: signed?.bytes ?? plain });
  }
}

interface Flight {
  readonly secondary: Secondary;
  readonly zone: ZoneRecords;
  readonly id: number;
  readonly session: TsigSession | undefined;
  readonly tries: number;
  readonly retryAt: Instant;
}

const FIRST_RETRY: Millis = 1000;
const TRIES = 5;
