import type { Socket } from 'node:net';
import { ipPrefix, isIpAddress, parseIpAddress } from '../../proto/address.ts';

/** To whom a connection is charged: its address, of IPv6 the /64, since whoever has one address there has them all. */
export function sourceOf(socket: Pick<Socket, 'remoteAddress'>): string {
  const address = remoteAddressOf(socket);
  return address.includes(':') && isIpAddress(address) ? ipPrefix(parseIpAddress(address), 64) : address;
}

/** IPv4 as such also on a socket for both families, without a zone. */
export function remoteAddressOf(socket: Pick<Socket, 'remoteAddress'>): string {
  const text = (socket.remoteAddress ?? '').split('%', 1)[0] ?? '';
  return text.replace(/^::ffff:(?=\d+\.)/, '');
}
