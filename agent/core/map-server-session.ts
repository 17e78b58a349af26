import { type Nonce, nonce } from '../../proto/lisp/header.ts';
import type { Instant } from '../../proto/time.ts';

/** The session with the map server as the parts of the core see it; the shell opens and loses it. */
export class MapServerSession {
  /** Null while there is none. */
  since: Instant | null = null;
  private lastNonce = 0n;

  get isUp(): boolean {
    return this.since !== null;
  }

  /** Larger than all before it. */
  nextNonce(): Nonce {
    this.lastNonce += 1n;
    return nonce(this.lastNonce);
  }
}
