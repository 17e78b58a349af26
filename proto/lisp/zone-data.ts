/**
 * What the zone has at a name, in the last RLOC-record of the name's mapping: a vendor LCAF (docs/control-protocol.md).
 *
 * ```
 * OUI 02-53-50 | subtype = 3 (8) | version = 1 (8) | TTL in seconds (32), 0xFFFFFFFF = the zone's
 *              | items: DNS type (16), length (16), data | an item of an unknown type is ignored
 * CNAME  target                                        NS   host, then addresses: length (8), 4 or 16, address
 * SRV    priority (16) | weight (16) | port (16) | target     TXT  ASCII
 * cut    (type 0) the delegated name at or above
 * ```
 *
 * Names are ASCII with their length (8) in front; a target is relative to the zone, or ends in a dot. Weights are those
 * of the RLOC-records of the targets.
 */
import { type IpAddress, ipFromBytes, ipToBytes } from '../address.ts';
import { Reader, Writer } from '../bytes.ts';
import { MAX_RECORDS, MAX_SERVERS, type NameServer, type RecordSets, type ServiceTarget } from '../dns/record-sets.ts';
import { DecodeError } from '../errors.ts';

export type ZoneRecords = Pick<RecordSets, 'ttl' | 'cname' | 'srv' | 'txt' | 'ns'> & { readonly cut: string | null };

/** Without the OUI. */
export function encodeZoneRecords({ ttl, cname, srv, txt, ns, cut }: ZoneRecords): Uint8Array {
  const writer = new Writer()
    .u8(ZONE_DATA, 'subtype')
    .u8(1, 'version')
    .u32(ttl ?? NO_TTL, 'TTL');
  const item = (type: number, data: Uint8Array): void => {
    writer.u16(type, 'type').u16(data.length, 'length').bytes(data);
  };
  if (cname !== null) item(ITEM.cname, name(new Writer(), cname).finish());
  for (const { priority, weight, port, target } of srv) {
    const head = new Writer().u16(priority, 'priority').u16(weight, 'weight').u16(port, 'port');
    item(ITEM.srv, name(head, target).finish());
  }
  for (const text of txt) item(ITEM.txt, ascii(text));
  for (const { host, addresses } of ns) {
    const data = name(new Writer(), host);
    for (const address of addresses) {
      const bytes = ipToBytes(address);
      data.u8(bytes.length, 'address length').bytes(bytes);
    }
    item(ITEM.ns, data.finish());
  }
  if (cut !== null) item(ITEM.cut, name(new Writer(), cut).finish());
  return writer.finish();
}

/** Null when it is something else. @throws DecodeError */
export function decodeZoneRecords(data: Uint8Array): ZoneRecords | null {
  const reader = new Reader(data);
  if (reader.u8('subtype') !== ZONE_DATA) return null;
  reader.skip(1, 'version');
  const ttl = reader.u32('TTL');
  let cname: string | null = null;
  let cut: string | null = null;
  const srv: ServiceTarget[] = [];
  const txt: string[] = [];
  const ns: NameServer[] = [];
  while (reader.remaining > 0) {
    const type = reader.u16('type');
    const item = new Reader(reader.bytes(reader.u16('length'), 'item'));
    if (type === ITEM.cname) cname = readName(item);
    else if (type === ITEM.cut) cut = readName(item);
    else if (type === ITEM.txt) txt.push(text(item.rest()));
    else if (type === ITEM.ns) ns.push(readServer(item));
    else if (type === ITEM.srv) {
      const [priority, weight, port] = [item.u16('priority'), item.u16('weight'), item.u16('port')];
      srv.push({ priority, weight, port, target: readName(item) });
    }
  }
  if (srv.length > MAX_RECORDS || txt.length > MAX_RECORDS || ns.length > MAX_SERVERS)
    throw new DecodeError('zone data', 0, 'has too many records');
  return { ttl: ttl === NO_TTL ? null : ttl, cname, srv, txt, ns, cut };
}

function readServer(item: Reader): NameServer {
  const host = readName(item);
  const addresses: IpAddress[] = [];
  while (item.remaining > 0 && addresses.length < MAX_SERVERS) {
    const length = item.u8('address length');
    if (length !== 4 && length !== 16) throw item.fail('address length', `is ${length}`);
    addresses.push(ipFromBytes(item.bytes(length, 'address')));
  }
  return { host, addresses };
}

function name(writer: Writer, value: string): Writer {
  return writer.u8(value.length, 'name length').bytes(ascii(value));
}

function readName(reader: Reader): string {
  const value = text(reader.bytes(reader.u8('name length'), 'name'));
  if (!NAME.test(value)) throw reader.fail('name', 'is not a domain name');
  return value;
}

function ascii(value: string): Uint8Array {
  return Uint8Array.from(value, (letter) => letter.charCodeAt(0));
}

function text(bytes: Uint8Array): string {
  const value = String.fromCharCode(...bytes);
  if (!/^[\x20-\x7e]*$/.test(value)) throw new DecodeError('text', 0, 'is not ASCII');
  return value;
}

const ZONE_DATA = 3;
const NO_TTL = 0xffff_ffff;
/** By the numbers of DNS types. */
const ITEM = { cut: 0, ns: 2, cname: 5, txt: 16, srv: 33 } as const;
const NAME = /^([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.|$))+$/;
