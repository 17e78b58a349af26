/**
 * Transaction signatures of DNS messages (RFC 8945).
 *
 * A TSIG is the last record of a message. Its MAC is over the message as it was before the TSIG was added, and:
 *
 *     request          message, TSIG variables
 *     answer           MAC of the request behind its length, message, TSIG variables
 *     further answers  MAC of the message before behind its length, message, time signed and fudge
 *
 * `TsigSession` is one such chain, at either end of it. MACs must have their whole length: a shorter one would be
 * as strong as its length only, and no known client sends one unasked.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import { Reader, Writer } from '../bytes.ts';
import { DecodeError } from '../errors.ts';
import type { WallClock } from '../time.ts';
import { CLASS } from './header.ts';
import { RCODE, TYPE } from './message.ts';
import { encodeName, readName } from './name.ts';
import type { DecodedMessage, ResourceRecord } from './sections.ts';

/** Hash of Node and octets of its MAC, by the algorithm's name. */
export const TSIG_ALGORITHMS = {
  'hmac-sha256': { hash: 'sha256', length: 32 },
  'hmac-sha384': { hash: 'sha384', length: 48 },
  'hmac-sha512': { hash: 'sha512', length: 64 },
} as const;

export type TsigAlgorithm = keyof typeof TSIG_ALGORITHMS;

export interface TsigKey {
  /** A domain name. */
  readonly name: string;
  readonly algorithm: TsigAlgorithm;
  readonly secret: Uint8Array;
}

/** Values of the error field, besides RCODEs. */
export const TSIG_ERROR = { badSig: 16, badKey: 17, badTime: 18, badTrunc: 22 } as const;

export interface Tsig {
  readonly key: string;
  readonly algorithm: string;
  /** Seconds since 1970. */
  readonly timeSigned: number;
  /** Seconds. */
  readonly fudge: number;
  readonly mac: Uint8Array;
  readonly originalId: number;
  readonly error: number;
  readonly other: Uint8Array;
}

/** The only record of its kind, at the end; undefined: there is none. @throws DecodeError */
export function findTsig(message: DecodedMessage): Tsig | undefined {
  const { answers, authorities, additionals } = message;
  const last = additionals.at(-1);
  const others = [...answers, ...authorities, ...additionals.slice(0, -1)];
  if (others.some(({ type }) => type === TYPE.tsig)) throw new DecodeError('TSIG', 0, 'is not the last record');
  return last?.type === TYPE.tsig ? decodeTsig(last) : undefined;
}

export type TsigVerdict =
  | { readonly kind: 'unsigned' }
  | {
      readonly kind: 'valid';
      readonly session: TsigSession;
      /** Seconds since 1970. */
      readonly timeSigned: number;
    }
  /** `reply` signs the error, or leaves it unsigned where there is no key that both know. */
  | { readonly kind: 'refused'; readonly error: number; readonly reply: (message: Uint8Array) => Uint8Array };

/**
 * What a server makes of a request. What a key signed at `signedBefore` (seconds since 1970) or earlier is refused as
 * not timely (RFC 8945 section 5.2.3).
 * @throws DecodeError when the TSIG is not formed as one
 */
export function verifyRequest(
  bytes: Uint8Array,
  message: DecodedMessage,
  keyNamed: (name: string) => TsigKey | undefined,
  now: WallClock,
  signedBefore: (key: string) => number = () => 0,
): TsigVerdict {
  const tsig = findTsig(message);
  if (tsig === undefined) return { kind: 'unsigned' };
  const key = keyNamed(tsig.key);
  if (key === undefined || key.algorithm !== tsig.algorithm) return unsignedRefusal(tsig, TSIG_ERROR.badKey);
  const { length } = TSIG_ALGORITHMS[key.algorithm];
  if (tsig.mac.length > length || tsig.mac.length < Math.max(10, length / 2)) {
    throw new DecodeError('MAC', 0, `has ${tsig.mac.length} octets, which ${key.algorithm} never has`);
  }
  const session = new TsigSession(key, tsig.mac);
  if (tsig.mac.length < length) return signedRefusal(session, tsig, TSIG_ERROR.badTrunc, now);
  const mac = hmac(key, [unsigned(bytes, message, tsig.originalId), variables(key, tsig)]);
  if (!timingSafeEqual(mac, tsig.mac)) return unsignedRefusal(tsig, TSIG_ERROR.badSig);
  const isLate = tsig.timeSigned <= signedBefore(key.name);
  if (isLate || !isTimely(tsig, now)) return signedRefusal(session, tsig, TSIG_ERROR.badTime, now);
  return { kind: 'valid', session, timeSigned: tsig.timeSigned };
}

/** Adds a TSIG to a request, and returns the session that verifies its answers. */
export function signRequest(
  message: Uint8Array,
  key: TsigKey,
  now: WallClock,
): { readonly bytes: Uint8Array; readonly session: TsigSession } {
  const tsig = { timeSigned: secondsOf(now), fudge: FUDGE, error: 0, other: new Uint8Array(0) };
  const mac = hmac(key, [message, variables(key, tsig)]);
  return { bytes: withTsig(message, key, tsig, mac), session: new TsigSession(key, mac) };
}

export class TsigSession {
  readonly key: TsigKey;
  private previous: Uint8Array;
  private messages = 0;

  /** `mac` of the request. */
  constructor(key: TsigKey, mac: Uint8Array) {
    this.key = key;
    this.previous = mac;
  }

  /** Of the request, until there is an answer. */
  get mac(): Uint8Array {
    return this.previous;
  }

  /** How many octets `sign` adds. */
  get overhead(): number {
    const { name, algorithm } = this.key;
    return encodeName(name).length + encodeName(algorithm).length + TSIG_ALGORITHMS[algorithm].length + FIXED;
  }

  /** The next answer, with a TSIG of its own. */
  sign(message: Uint8Array, now: WallClock): Uint8Array {
    return this.signAs(message, { timeSigned: secondsOf(now), fudge: FUDGE, error: 0, other: new Uint8Array(0) });
  }

  /** Whether this is the next answer of who has the key. */
  verifies(bytes: Uint8Array, message: DecodedMessage, now: WallClock): boolean {
    let tsig: Tsig | undefined;
    try {
      tsig = findTsig(message);
    } catch (error) {
      if (error instanceof DecodeError) return false;
      throw error;
    }
    if (tsig === undefined || tsig.key !== this.key.name || tsig.algorithm !== this.key.algorithm) return false;
    const mac = this.macOf(unsigned(bytes, message, tsig.originalId), tsig);
    if (mac.length !== tsig.mac.length || !timingSafeEqual(mac, tsig.mac) || !isTimely(tsig, now)) return false;
    this.advance(mac);
    return true;
  }

  /** With fields of its own: errors repeat or add to them. */
  signAs(message: Uint8Array, tsig: SignedFields): Uint8Array {
    const mac = this.macOf(message, tsig);
    this.advance(mac);
    return withTsig(message, this.key, tsig, mac);
  }

  private macOf(message: Uint8Array, tsig: SignedFields): Uint8Array {
    const before = new Writer().u16(this.previous.length, 'MAC size').bytes(this.previous).finish();
    return hmac(this.key, [before, message, this.messages === 0 ? variables(this.key, tsig) : timers(tsig)]);
  }

  private advance(mac: Uint8Array): void {
    this.previous = mac;
    this.messages++;
  }
}

type SignedFields = Pick<Tsig, 'timeSigned' | 'fudge' | 'error' | 'other'>;

/** NOTAUTH with an error that nobody can verify: there is no key for it (RFC 8945 section 5.3.2). */
function unsignedRefusal(tsig: Tsig, error: number): TsigVerdict {
  const fields = { timeSigned: tsig.timeSigned, fudge: tsig.fudge, error, other: new Uint8Array(0) };
  const reply = (message: Uint8Array): Uint8Array =>
    append(message, tsig.key, encodeTsig({ ...tsig, ...fields, mac: new Uint8Array(0) }));
  return { kind: 'refused', error, reply };
}

/** BADTIME repeats the time of the request and adds our own (RFC 8945 section 5.2.3). */
function signedRefusal(session: TsigSession, tsig: Tsig, error: number, now: WallClock): TsigVerdict {
  const late = error === TSIG_ERROR.badTime;
  const timeSigned = late ? tsig.timeSigned : secondsOf(now);
  const other = late
    ? new Writer()
        .u16(0, 'time')
        .u32(secondsOf(now) >>> 0, 'time')
        .finish()
    : new Uint8Array(0);
  return {
    kind: 'refused',
    error,
    reply: (message) => session.signAs(message, { timeSigned, fudge: FUDGE, error, other }),
  };
}

function isTimely(tsig: Tsig, now: WallClock): boolean {
  return Math.abs(secondsOf(now) - tsig.timeSigned) <= Math.min(tsig.fudge, FUDGE);
}

/** The message as it was signed: with the ID it had and without the TSIG. */
function unsigned(bytes: Uint8Array, message: DecodedMessage, originalId: number): Uint8Array {
  const copy = new Uint8Array(bytes.subarray(0, message.lastRecord));
  const view = new DataView(copy.buffer);
  view.setUint16(0, originalId);
  view.setUint16(10, message.additionals.length - 1);
  return copy;
}

function variables(key: TsigKey, tsig: SignedFields): Uint8Array {
  return new Writer()
    .bytes(encodeName(key.name))
    .u16(CLASS.any, 'CLASS')
    .u32(0, 'TTL')
    .bytes(encodeName(key.algorithm))
    .bytes(timers(tsig))
    .u16(tsig.error, 'error')
    .u16(tsig.other.length, 'other len')
    .bytes(tsig.other)
    .finish();
}

function timers({ timeSigned, fudge }: SignedFields): Uint8Array {
  return new Writer()
    .u16(Math.floor(timeSigned / 2 ** 32), 'time signed')
    .u32(timeSigned % 2 ** 32, 'time signed')
    .u16(fudge, 'fudge')
    .finish();
}

function withTsig(message: Uint8Array, key: TsigKey, tsig: SignedFields, mac: Uint8Array): Uint8Array {
  const originalId = new DataView(message.buffer, message.byteOffset).getUint16(0);
  return append(message, key.name, encodeTsig({ ...tsig, key: key.name, algorithm: key.algorithm, mac, originalId }));
}

function append(message: Uint8Array, owner: string, rdata: Uint8Array): Uint8Array {
  const record = new Writer()
    .bytes(encodeName(owner))
    .u16(TYPE.tsig, 'TYPE')
    .u16(CLASS.any, 'CLASS')
    .u32(0, 'TTL')
    .u16(rdata.length, 'RDLENGTH')
    .bytes(rdata)
    .finish();
  const bytes = new Uint8Array(message.length + record.length);
  bytes.set(message);
  bytes.set(record, message.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(10, view.getUint16(10) + 1);
  return bytes;
}

function encodeTsig(tsig: Tsig): Uint8Array {
  return new Writer()
    .bytes(encodeName(tsig.algorithm))
    .bytes(timers(tsig))
    .u16(tsig.mac.length, 'MAC size')
    .bytes(tsig.mac)
    .u16(tsig.originalId, 'original ID')
    .u16(tsig.error, 'error')
    .u16(tsig.other.length, 'other len')
    .bytes(tsig.other)
    .finish();
}

function decodeTsig({ name: key, class: kind, ttl, rdata }: ResourceRecord): Tsig {
  if (kind !== CLASS.any || ttl !== 0) throw new DecodeError('TSIG', 0, 'is not of class ANY and TTL 0');
  const { name: algorithm, end } = readName(rdata, 0);
  const reader = new Reader(rdata, end);
  const timeSigned = reader.u16('time signed') * 2 ** 32 + reader.u32('time signed');
  const fudge = reader.u16('fudge');
  const mac = reader.bytes(reader.u16('MAC size'), 'MAC');
  const originalId = reader.u16('original ID');
  const error = reader.u16('error');
  const other = reader.bytes(reader.u16('other len'), 'other data');
  if (reader.remaining > 0) throw reader.fail('TSIG', 'has octets left over');
  return { key, algorithm, timeSigned, fudge, mac, originalId, error, other };
}

function hmac(key: TsigKey, parts: readonly Uint8Array[]): Uint8Array {
  const digest = createHmac(TSIG_ALGORITHMS[key.algorithm].hash, key.secret);
  for (const part of parts) digest.update(part);
  return digest.digest();
}

function secondsOf(now: WallClock): number {
  return Math.floor(now / 1000);
}

/** RCODE of an answer to a request whose TSIG does not hold. */
export const TSIG_REFUSAL = RCODE.notAuth;
/** Seconds that two clocks may differ, what is usual; a request cannot ask for more. */
const FUDGE = 300;
/** Octets of a TSIG record without its names and its MAC. */
const FIXED = 26;
