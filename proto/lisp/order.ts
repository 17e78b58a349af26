/**
 * What a map server asks of an agent on an administrator's behalf: to attach an EID, or to give it up.
 *
 * It is an SMR (RFC 9301 section 6.1) whose only ITR-RLOC is a vendor LCAF, so an agent that does not know it ignores it:
 *
 * ```
 * OUI 02-53-50 | subtype = 2 (8) | version = 1 (8) | what (8): 1 attach, 2 detach | interface length (8), 0 = none
 *              | interface, ASCII | later additions, ignored
 * ```
 */
import { Reader, Writer } from '../bytes.ts';
import type { PrefixEid } from '../eid.ts';
import { DecodeError } from '../errors.ts';
import type { Nonce } from './header.ts';
import type { MapRequest } from './map-request.ts';
import { STAYPUT_OUI } from './mapping-record.ts';
import { queriesOf, solicitMapRequest } from './native.ts';

export interface Order {
  readonly what: 'attach' | 'detach';
  readonly eid: PrefixEid;
  /** Where the workload is; null: as the agent has it, else the host itself. */
  readonly interface: string | null;
}

export function orderRequest(nonce: Nonce, order: Order): MapRequest {
  const name = new TextEncoder().encode(order.interface ?? '');
  const data = new Writer()
    .u8(ORDER, 'subtype')
    .u8(1, 'version')
    .u8(WHAT.indexOf(order.what), 'what')
    .u8(name.length, 'interface length')
    .bytes(name)
    .finish();
  const request = solicitMapRequest({ nonce, eid: order.eid });
  return { ...request, itrRlocs: [{ kind: 'vendor', oui: STAYPUT_OUI, data }] };
}

/** Null if it is an ordinary Map-Request. @throws DecodeError */
export function orderOf(request: MapRequest): Order | null {
  const [locator] = request.itrRlocs;
  if (!request.smr || locator?.kind !== 'vendor' || locator.oui !== STAYPUT_OUI) return null;
  const reader = new Reader(locator.data);
  if (reader.u8('subtype') !== ORDER) return null;
  reader.skip(1, 'version');
  const what = WHAT[reader.u8('what')];
  const name = new TextDecoder().decode(reader.bytes(reader.u8('interface length'), 'interface'));
  const [query] = queriesOf(request);
  if (what === undefined || what === '' || query?.eid.kind !== 'prefix') throw new DecodeError('order', 0, 'unknown');
  if (name !== '' && !INTERFACE_NAME.test(name)) throw new DecodeError('order', 0, 'not the name of an interface');
  return { what, eid: query.eid, interface: name === '' ? null : name };
}

/** As the kernel takes it. */
export const INTERFACE_NAME = /^(?!\.)[!-.0-~]{1,15}$/;
const ORDER = 2;
/** By their codes. */
const WHAT = ['', 'attach', 'detach'] as const;
