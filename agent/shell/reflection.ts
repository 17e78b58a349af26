/**
 * How this host is seen over UDP: by the map server's reflector (`mapserver/core/reflector.ts`), asked at each of its
 * ports.
 */
import { randomBytes } from 'node:crypto';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { type IpAddress, isIpAddress, parseIpAddress } from '../../proto/address.ts';
import { DecodeError } from '../../proto/errors.ts';
import { type Nonce, nonce } from '../../proto/lisp/header.ts';
import { INFO_REQUEST } from '../../proto/lisp/info-request.ts';
import { decodeLispMessage, encodeLispMessage } from '../../proto/lisp/message.ts';
import type { Millis } from '../../proto/time.ts';

/**
 * `none`: the address is one of this host; `independent`: all destinations see one address and port (RFC 4787,
 * endpoint-independent mapping), as far as two ports of one address tell; `dependent`: each sees another; `unknown`:
 * only one port has answered.
 */
export type Nat = 'none' | 'independent' | 'dependent' | 'unknown';

export interface UdpView {
  /** What was sent from an ephemeral port arrived from here. */
  readonly address: IpAddress;
  readonly port: number;
  readonly nat: Nat;
}

/** Null: nothing has come back. Errors of the network count as that. */
export async function askReflector(
  address: IpAddress,
  ports: readonly number[],
  timing: { readonly everyMs: Millis; readonly limitMs: Millis } = { everyMs: 300, limitMs: 2_000 },
): Promise<UdpView | null> {
  const waiting = new Map(ports.slice(0, MAX_PORTS).map((port) => [port, nonce(randomBytes(8).readBigUInt64BE())]));
  if (waiting.size === 0) return null;
  const seen: Seen[] = [];
  const socket = createSocket({ type: isIPv6(address) ? 'udp6' : 'udp4' });
  const ended = new AbortController();
  const limit = setTimeout(() => ended.abort(), timing.limitMs);
  const ask = (): void => {
    for (const [port, own] of waiting) socket.send(question(own), port, address, () => {});
  };
  const repeat = setInterval(ask, timing.everyMs);
  try {
    socket.on('error', () => ended.abort());
    socket.on('message', (bytes, { port }) => {
      const own = waiting.get(port);
      const answer = own === undefined ? null : answerTo(own, bytes);
      if (answer === null) return;
      waiting.delete(port);
      seen.push(answer);
      if (waiting.size === 0) ended.abort();
    });
    socket.bind();
    ask();
    if (!ended.signal.aborted) await once(ended.signal, 'abort');
    return viewOf(seen, localPort(socket));
  } finally {
    clearTimeout(limit);
    clearInterval(repeat);
    socket.close();
  }
}

interface Seen {
  readonly address: IpAddress;
  readonly port: number;
}

function viewOf(seen: readonly Seen[], ownPort: number | null): UdpView | null {
  const [first, second] = seen;
  if (first === undefined) return null;
  const own = Object.values(networkInterfaces()).some((each) => each?.some(({ address }) => address === first.address));
  if (own && first.port === ownPort) return { ...first, nat: 'none' };
  if (second === undefined) return { ...first, nat: 'unknown' };
  const same = first.address === second.address && first.port === second.port;
  return { ...first, nat: same ? 'independent' : 'dependent' };
}

/** As long as its answer, which names an address of 16 octets at most: a reflector says no more than it was asked. */
function question(own: Nonce): Uint8Array {
  return encodeLispMessage({
    ...INFO_REQUEST,
    nonce: own,
    sender: { kind: 'name', name: 'stayput'.padEnd(FILLED, '.') },
  });
}

function answerTo(own: Nonce, bytes: Uint8Array): Seen | null {
  try {
    const message = decodeLispMessage(bytes);
    if (message.type !== 'info-reply' || message.nonce !== own || message.nat.globalEtr.kind !== 'ip') return null;
    const { address } = message.nat.globalEtr;
    return isIpAddress(address) ? { address: parseIpAddress(address), port: message.nat.etrPort } : null;
  } catch (error) {
    if (error instanceof DecodeError) return null;
    throw error;
  }
}

function localPort(socket: Socket): number | null {
  try {
    return socket.address().port;
  } catch {
    return null;
  }
}

const MAX_PORTS = 2;
const FILLED = 64;
