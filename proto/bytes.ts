/**
 * Cursors over octets in network byte order.
 *
 * A Reader never reads outside its bounds: whatever is missing is a DecodeError that names the field and its offset
 * from the start of the message, also in a Reader for a part of it. Octets that it hands out are copies, so that a
 * decoded message outlives the receive buffer. A Writer grows as needed and refuses values that their field cannot
 * hold with an EncodeError, because truncating them would put a different value on the wire.
 */
import { DecodeError, StayputError } from './errors.ts';

/** A value does not fit the field of the format that it has to go into. */
export class EncodeError extends StayputError {
  constructor(field: string, problem: string) {
    super('STAYPUT_ENCODE', `${field}: ${problem}`);
  }
}

export class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #end: number;
  #offset: number;

  constructor(bytes: Uint8Array, start = 0, end = bytes.length) {
    // A plain view: `slice` of a Node Buffer would alias instead of copy.
    this.#bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#offset = start;
    this.#end = end;
  }

  /** Octets from the start of the message. */
  get offset(): number {
    return this.#offset;
  }

  get remaining(): number {
    return this.#end - this.#offset;
  }

  u8(field: string): number {
    return this.#view.getUint8(this.#take(1, field));
  }

  u16(field: string): number {
    return this.#view.getUint16(this.#take(2, field));
  }

  u24(field: string): number {
    const at = this.#take(3, field);
    return this.#view.getUint8(at) * 0x10000 + this.#view.getUint16(at + 1);
  }

  u32(field: string): number {
    return this.#view.getUint32(this.#take(4, field));
  }

  u64(field: string): bigint {
    return this.#view.getBigUint64(this.#take(8, field));
  }

  /** A copy of the next `length` octets. */
  bytes(length: number, field: string): Uint8Array {
    const at = this.#take(length, field);
    return this.#bytes.slice(at, at + length);
  }

  /** A copy of everything that is left. */
  rest(): Uint8Array {
    return this.bytes(this.remaining, 'rest');
  }

  skip(length: number, field: string): void {
    this.#take(length, field);
  }

  /** A Reader for the next `length` octets, which this one skips. */
  part(length: number, field: string): Reader {
    const at = this.#take(length, field);
    return new Reader(this.#bytes, at, at + length);
  }

  /** A copy of what was read since `offset`. */
  since(offset: number): Uint8Array {
    return this.#bytes.slice(offset, this.#offset);
  }

  /** Octets before the next zero octet, which is skipped too. */
  untilZero(field: string): Uint8Array {
    const zero = this.#bytes.indexOf(0, this.#offset);
    if (zero < 0 || zero >= this.#end) throw this.fail(field, 'no terminating zero octet');
    const text = this.bytes(zero - this.#offset, field);
    this.#offset += 1;
    return text;
  }

  /** Demands that `length` octets are left, before anything is allocated for them. */
  expect(length: number, field: string): void {
    if (length > this.remaining) throw this.fail(field, `${length} octets needed, ${this.remaining} left`);
  }

  /** For the caller to throw. */
  fail(field: string, problem: string): DecodeError {
    return new DecodeError(field, this.#offset, problem);
  }

  #take(length: number, field: string): number {
    this.expect(length, field);
    const at = this.#offset;
    this.#offset += length;
    return at;
  }
}

export class Writer {
  #bytes = new Uint8Array(128);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  u8(value: number, field: string): this {
    const at = this.#grow(1);
    this.#view.setUint8(at, within(value, 0xff, field));
    return this;
  }

  u16(value: number, field: string): this {
    const at = this.#grow(2);
    this.#view.setUint16(at, within(value, 0xffff, field));
    return this;
  }

  u24(value: number, field: string): this {
    const at = this.#grow(3);
    this.#view.setUint8(at, within(value, 0xffffff, field) >>> 16);
    this.#view.setUint16(at + 1, value & 0xffff);
    return this;
  }

  u32(value: number, field: string): this {
    const at = this.#grow(4);
    this.#view.setUint32(at, within(value, 0xffffffff, field));
    return this;
  }

  u64(value: bigint, field: string): this {
    if (value < 0n || value > 0xffffffffffffffffn) throw new EncodeError(field, `${value} does not fit 64 bits`);
    const at = this.#grow(8);
    this.#view.setBigUint64(at, value);
    return this;
  }

  bytes(bytes: Uint8Array): this {
    const at = this.#grow(bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  /** Appends a 16-bit length and what `body` writes, the length counting the latter. */
  lengthPrefixed(field: string, body: (writer: Writer) => void): this {
    const at = this.#grow(2);
    body(this);
    this.#view.setUint16(at, within(this.#length - at - 2, 0xffff, field));
    return this;
  }

  /** A copy of what was written. */
  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  /** May replace `#view`: call it in a statement of its own before. */
  #grow(octets: number): number {
    const at = this.#length;
    this.#length += octets;
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#length, 2 * this.#bytes.length));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }
}

/** `value` when it is a whole number from 0 to `max`. @throws EncodeError */
export function within(value: number, max: number, field: string): number {
  if (!Number.isInteger(value) || value < 0 || value > max) {
    throw new EncodeError(field, `${value} is not a whole number from 0 to ${max}`);
  }
  return value;
}

/** To read and write numbers in place. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A copy of all of them, one behind the other. */
export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}
