/**
 * What octets on the LISP ports are: a control message, perhaps with another inside, a data packet, or damaged.
 * Whoever prints it (`dissection-text.ts`, `dissection-json.ts`) decodes nothing more.
 */
import { Reader } from '../../proto/bytes.ts';
import { DecodeError } from '../../proto/errors.ts';
import { decodeIpPacket, type IpPacket, PROTOCOL } from '../../proto/ip-packet.ts';
import { type Verification, verifyAuthentication } from '../../proto/lisp/authentication.ts';
import { DATA_HEADER_LENGTH, type DataHeader, decodeDataHeader, LISP_DATA_PORT } from '../../proto/lisp/data-header.ts';
import { LISP_CONTROL_PORT } from '../../proto/lisp/header.ts';
import { decodeLispMessage, type LispMessage } from '../../proto/lisp/message.ts';
import { type UdpDatagram, udpDatagramOf } from './link-layer.ts';
import { type SetBits, setBits } from './message-bits.ts';

export type Dissection = ControlDissection | DataDissection | Malformed;

export interface ControlDissection {
  readonly kind: 'control';
  readonly octets: number;
  readonly bits: SetBits;
  readonly message: LispMessage;
  /** Absent without a key, and for messages that carry no authentication. */
  readonly verification?: Verification;
  /** In an ECM. */
  readonly inner?: Dissection;
}

export interface DataDissection {
  readonly kind: 'data';
  readonly octets: number;
  readonly header: DataHeader;
  /** Encrypted by Stayput: what docs/wire-format.md calls the packet. */
  readonly tunnel?: string;
  /** Not encrypted. */
  readonly packet?: InnerPacket;
  /** A control message inside, as RTRs send it to keep NAT bindings. */
  readonly inner?: Dissection;
}

export interface InnerPacket extends Omit<IpPacket, 'body'> {
  /** Of the body. */
  readonly octets: number;
  /** Of TCP, UDP and SCTP. */
  readonly ports?: { readonly source: number; readonly destination: number };
}

export interface Malformed {
  readonly kind: 'malformed';
  readonly error: DecodeError;
  readonly bytes: Uint8Array;
}

/** By the ports, the destination first: an xTR behind a NAT sends control messages from port 4341. */
export function portMeaning({ sourcePort, destinationPort }: UdpDatagram): 'control' | 'data' | null {
  for (const port of [destinationPort, sourcePort]) {
    if (port === LISP_CONTROL_PORT) return 'control';
    if (port === LISP_DATA_PORT) return 'data';
  }
  return null;
}

/** `psk` verifies what is authenticated. */
export function dissectControl(bytes: Uint8Array, psk: Uint8Array | null, nested = false): Dissection {
  return decoded(bytes, () => {
    const message = decodeLispMessage(bytes);
    const authenticated = 'authentication' in message && message.authentication.algorithm !== 0;
    const mayHold = message.type === 'encapsulated-control' && !nested;
    return {
      kind: 'control',
      octets: bytes.length,
      bits: setBits(bytes),
      message,
      ...(authenticated && psk !== null ? { verification: verifyAuthentication(bytes, psk) } : {}),
      ...(mayHold ? { inner: dissectControl(message.payload, psk, true) } : {}),
    };
  });
}

export function dissectData(bytes: Uint8Array, psk: Uint8Array | null): Dissection {
  return decoded(bytes, () => {
    const header = decodeDataHeader(bytes);
    const result = { kind: 'data' as const, octets: bytes.length, header };
    if (header.keyId !== 0)
      return bytes[0] === STAYPUT ? { ...result, tunnel: TUNNEL[bytes[7] ?? 0] ?? UNKNOWN } : result;
    if (bytes.length === DATA_HEADER_LENGTH) return result;
    const { body, ...packet } = decodeIpPacket(new Reader(bytes, DATA_HEADER_LENGTH));
    const octets = body.remaining;
    const start = bytes.length - octets;
    const udp = udpDatagramOf({ ...packet, body });
    const isControl = udp !== null && portMeaning(udp) === 'control';
    return {
      ...result,
      packet: { ...packet, octets, ...portsOf(packet, bytes.subarray(start)) },
      ...(isControl ? { inner: dissectControl(udp.payload, psk, true) } : {}),
    };
  });
}

/** True when everything in it could be read, and no authentication is wrong. */
export function isSound(dissection: Dissection): boolean {
  if (dissection.kind === 'malformed') return false;
  if (dissection.kind === 'control' && dissection.verification?.ok === false) return false;
  return dissection.inner === undefined || isSound(dissection.inner);
}

function portsOf({ protocol, fragment }: Omit<IpPacket, 'body'>, body: Uint8Array): Pick<InnerPacket, 'ports'> {
  if (fragment || !WITH_PORTS.has(protocol) || body.length < 4) return {};
  const reader = new Reader(body);
  return { ports: { source: reader.u16('source port'), destination: reader.u16('destination port') } };
}

function decoded(bytes: Uint8Array, decode: () => Dissection): Dissection {
  try {
    return decode();
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    return { kind: 'malformed', error, bytes };
  }
}

const WITH_PORTS: ReadonlySet<number> = new Set([PROTOCOL.tcp, PROTOCOL.udp, PROTOCOL.sctp]);
/** First octet and kinds of docs/wire-format.md. */
const STAYPUT = 0x89;
const UNKNOWN = 'of an unknown kind';
const TUNNEL: Readonly<Record<number, string>> = {
  0: 'data',
  1: 'data with a partial checksum',
  16: 'initiation',
  17: 'response',
  18: 'cookie reply',
  32: 'session control',
};
