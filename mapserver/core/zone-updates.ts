/**
 * Updates of the zone one after the other, each exactly once.
 *
 * The next one is judged when the one before has settled, so each sees what those before it did, and a prerequisite
 * holds when the change is made. If somebody else (an operator) changed a name in between, one that is changed or one
 * that a prerequisite is about, it is judged again.
 *
 * A request is known by its MAC for as long as a copy of it would be taken for timely: whoever repeats it, because an
 * answer was lost or to do harm, gets the answer of the first one, and nothing is changed again. Over a restart only
 * the time is kept until which a key has signed: what is not newer is refused as not timely.
 */
import { RCODE } from '../../proto/dns/message.ts';
import type { SectionMessage } from '../../proto/dns/sections.ts';
import { minutes, type WallClock } from '../../proto/time.ts';
import type { NameChange, SeenName } from './name-changes.ts';
import type { OperationCode } from './operation-error.ts';
import type { UpdateVerdict } from './zone-update.ts';

export type Update<Request> = Request & {
  readonly message: SectionMessage;
  /** Name of the key that signed it. */
  readonly key: string;
  readonly mac: Uint8Array;
};

export interface UpdateHandlers<Request> {
  readonly judge: (update: Update<Request>) => UpdateVerdict;
  /** `handleChanged` follows. */
  readonly change: (changes: readonly NameChange[], unchanged: readonly SeenName[]) => void;
  readonly answer: (update: Update<Request>, rcode: number) => void;
  /** Once for each update, whoever repeats it. */
  readonly settled: (update: Update<Request>, rcode: number) => void;
  /** Its first copy is still under way. */
  readonly ignore: (update: Update<Request>) => void;
}

export class ZoneUpdates<Request> {
  private readonly handlers: UpdateHandlers<Request>;
  private readonly waiting: Update<Request>[] = [];
  /** By MAC, the oldest first. */
  private readonly seen = new Map<string, { readonly at: WallClock; rcode: number | undefined }>();
  private current: { readonly update: Update<Request>; readonly attempt: number } | undefined;

  constructor(handlers: UpdateHandlers<Request>) {
    this.handlers = handlers;
  }

  handle(update: Update<Request>, now: WallClock): void {
    const known = this.seen.get(identityOf(update));
    if (known !== undefined) {
      if (known.rcode === undefined) this.handlers.ignore(update);
      else this.handlers.answer(update, known.rcode);
      return;
    }
    this.forget(now);
    if (this.waiting.length >= MAX_WAITING || this.seen.size >= MAX_SEEN) {
      this.handlers.answer(update, RCODE.servFail);
      return;
    }
    this.seen.set(identityOf(update), { at: now, rcode: undefined });
    this.waiting.push(update);
    this.run();
  }

  /** Of the change under way; null: it was made. */
  handleChanged(error: OperationCode | null): void {
    const { current } = this;
    if (current === undefined) return;
    this.current = undefined;
    if (error === 'STAYPUT_NAME_CHANGED' && current.attempt < ATTEMPTS)
      this.attempt(current.update, current.attempt + 1);
    else this.settle(current.update, rcodeOf(error));
    this.run();
  }

  private run(): void {
    while (this.current === undefined) {
      const update = this.waiting.shift();
      if (update === undefined) return;
      this.attempt(update, 1);
    }
  }

  private attempt(update: Update<Request>, attempt: number): void {
    const verdict = this.handlers.judge(update);
    if (verdict.kind === 'refused') {
      this.settle(update, verdict.rcode);
    } else if (verdict.changes.length === 0) {
      this.settle(update, RCODE.noError);
    } else {
      this.current = { update, attempt };
      this.handlers.change(verdict.changes, verdict.unchanged);
    }
  }

  private settle(update: Update<Request>, rcode: number): void {
    const known = this.seen.get(identityOf(update));
    if (known !== undefined) known.rcode = rcode;
    this.handlers.settled(update, rcode);
    this.handlers.answer(update, rcode);
  }

  private forget(now: WallClock): void {
    for (const [identity, { at, rcode }] of this.seen) {
      if (rcode === undefined || Math.abs(now - at) <= REMEMBERED) break;
      this.seen.delete(identity);
    }
  }
}

function identityOf({ mac }: Update<unknown>): string {
  return String(mac);
}

function rcodeOf(error: OperationCode | null): number {
  switch (error) {
    case null:
      return RCODE.noError;
    case 'STAYPUT_NAME_RECORDS':
    case 'STAYPUT_TOO_MANY':
      return RCODE.refused;
    default:
      return RCODE.servFail;
  }
}

const ATTEMPTS = 5;
const MAX_WAITING = 64;
/** Twice what clocks may differ. */
const REMEMBERED = minutes(10);
/** Beyond, updates wait until some are forgotten: 160 a second for ten minutes. */
const MAX_SEEN = 100_000;
