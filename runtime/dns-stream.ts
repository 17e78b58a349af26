/** DNS over TCP: each message behind its length in two octets (RFC 1035 section 4.2.2, RFC 7766 section 8). */
import { DecodeError } from '../proto/errors.ts';

/** Length and message in one buffer, so that they leave in one segment. */
export function frame(packet: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafe(2 + packet.length);
  framed.writeUInt16BE(packet.length, 0);
  framed.set(packet, 2);
  return framed;
}

export class FrameReader {
  readonly #limit: number;
  #pending: Buffer = Buffer.alloc(0);

  /** `limit` in octets is for one message. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** The messages that are complete with this chunk. @throws DecodeError when one is larger than the limit */
  push(chunk: Buffer): Buffer[] {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    const messages: Buffer[] = [];
    while (this.#pending.length >= 2) {
      const length = this.#pending.readUInt16BE(0);
      if (length > this.#limit) throw new DecodeError('length', 0, `${length} octets are more than ${this.#limit}`);
      if (this.#pending.length < 2 + length) break;
      messages.push(this.#pending.subarray(2, 2 + length));
      this.#pending = this.#pending.subarray(2 + length);
    }
    return messages;
  }
}
