/**
 * The reflector: tells whoever asks over UDP from which address and port the question came.
 *
 * Hosts learn so whether UDP leaves and comes back at all, whether there is a NAT on the way, and, by asking at two
 * ports, whether it gives each destination a port of its own. The messages are LISP's Info-Request and Info-Reply
 * without authentication (draft-ermagan-lisp-nat-traversal). Sources can be forged, so an answer is never longer than
 * its question, which askers fill up for this with the name that may follow; there are few for each source, and the
 * asker knows its answer by 64 random bits.
 */
import { DecodeError } from '../../proto/errors.ts';
import { decodeLispMessage, encodeLispMessage } from '../../proto/lisp/message.ts';
import type { Instant } from '../../proto/time.ts';
import { infoReplyTo } from './lisp/info-reply.ts';
import { chargedTo, type UdpPeer } from './lisp/udp-peer.ts';
import { RateTable } from './rate-table.ts';

export type ReflectorResult =
  | 'answered'
  /** More than its source, or all, may ask. */
  | 'limited'
  /** The answer would be longer than the question. */
  | 'short'
  /** No Info-Request, or one with authentication. */
  | 'unexpected';

export interface Reflection {
  readonly result: ReflectorResult;
  /** What to send back; null: nothing. */
  readonly answer: Uint8Array | null;
}

export class Reflector {
  private readonly rates = new RateTable(PER_SECOND, BURST, MAX_SOURCES);
  private readonly total = new RateTable(PER_SECOND_OF_ALL, PER_SECOND_OF_ALL, 1);

  handleDatagram(from: UdpPeer, bytes: Uint8Array, now: Instant): Reflection {
    // First of all: also what is read in vain takes time.
    if (!this.rates.tryTake(chargedTo(from), now) || !this.total.tryTake('all', now)) return nothing('limited');
    if (bytes.length > LONGEST) return nothing('unexpected');
    try {
      const message = decodeLispMessage(bytes);
      if (message.type !== 'info-request' || message.authentication.algorithm !== 0) return nothing('unexpected');
      const answer = encodeLispMessage(infoReplyTo(message, from));
      return answer.length > bytes.length ? nothing('short') : { result: 'answered', answer };
    } catch (error) {
      if (error instanceof DecodeError) return nothing('unexpected');
      throw error;
    }
  }
}

function nothing(result: ReflectorResult): Reflection {
  return { result, answer: null };
}

/** Many hosts may be behind one NAT. */
const PER_SECOND = 20;
const BURST = 60;
const PER_SECOND_OF_ALL = 2_000;
const MAX_SOURCES = 20_000;
/** Octets. */
const LONGEST = 512;
