/** Addresses for people: plain ones in the line where they are named, an LCAF below it. */
import type { LispAddress } from '../../proto/lisp/afi.ts';
import type { Angle } from '../../proto/lisp/lcaf/geo-coordinates.ts';
import type { PortRange } from '../../proto/lisp/lcaf/qualified-address.ts';
import { isLcaf, type Lcaf, lcafType } from '../../proto/lisp/lcaf.ts';
import { hexNumber, type Item, item, octets, parts, quoted } from './text-tree.ts';

/** `more` goes below the address. */
export function addressItem(
  title: string,
  address: LispAddress,
  maskLength?: number,
  ...more: readonly string[]
): Item {
  if (!isLcaf(address)) return item(`${title} ${plainAddress(address, maskLength)}`, ...more);
  // An instance ID stands around the address that the mask is of.
  const inside = address.kind === 'instance-id' ? maskLength : undefined;
  const mask = maskLength === undefined || inside !== undefined ? '' : ` (mask-len ${maskLength})`;
  const { text, below } = lcafItem(address, inside);
  const raw = address.kind === 'lcaf' ? undefined : address.asReceived;
  const rest = raw === undefined ? undefined : `with reserved bits or octets behind: ${octets(raw)}`;
  return item(`${title}${mask} LCAF ${lcafType(address)}, ${text}`, ...below, rest, ...more);
}

function plainAddress(address: Exclude<LispAddress, Lcaf>, maskLength: number | undefined): string {
  const mask = maskLength === undefined ? '' : `/${maskLength}`;
  switch (address.kind) {
    case 'none':
      return `none${mask}`;
    case 'ip':
      return `${address.address}${mask}`;
    case 'mac':
      return `${address.mac}${mask}`;
    case 'name':
      return `${quoted(address.name)}${mask}`;
    default:
      return address satisfies never;
  }
}

function lcafItem(lcaf: Lcaf, maskLength: number | undefined): Item {
  switch (lcaf.kind) {
    case 'null-body':
      return item('null body');
    case 'afi-list':
      return item('AFI list', ...lcaf.addresses.map((address, i) => addressItem(`${i + 1}:`, address)));
    case 'instance-id': {
      const mask = lcaf.iidMaskLength === 0 ? '' : `, IID mask-len ${lcaf.iidMaskLength}`;
      return item(`instance ID ${lcaf.iid}${mask}`, addressItem('address', lcaf.address, maskLength));
    }
    case 'as-number':
      return item(`AS number ${lcaf.asNumber}`, addressItem('address', lcaf.address));
    case 'application': {
      const { trafficClass, protocol, localPorts, remotePorts } = lcaf;
      return item(
        'application data',
        `traffic class ${hexNumber(trafficClass, 6)}, protocol ${protocol}`,
        `local ports ${range(localPorts)}, remote ports ${range(remotePorts)}`,
        addressItem('address', lcaf.address),
      );
    }
    case 'geo': {
      const { latitude, longitude, altitude } = lcaf;
      const height = altitude === null ? '' : `, ${altitude} m`;
      const place = `${angle(latitude, 'N', 'S')} ${angle(longitude, 'E', 'W')}${height}`;
      return item(`geo-coordinates ${place}`, addressItem('address', lcaf.address));
    }
    case 'nat':
      return item(
        'NAT traversal',
        `MS port ${lcaf.msPort}, ETR port ${lcaf.etrPort}`,
        addressItem('global ETR', lcaf.globalEtr),
        addressItem('MS', lcaf.ms),
        addressItem('private ETR', lcaf.privateEtr),
        ...lcaf.rtrs.map((rtr, i) => addressItem(`RTR ${i + 1}`, rtr)),
      );
    case 'nonce-locator':
      return item(`nonce locator, nonce ${hexNumber(lcaf.nonce, 6)}`, addressItem('address', lcaf.address));
    case 'multicast': {
      const { rendezvousPoint, leave, join } = lcaf;
      const flags = parts(rendezvousPoint && 'R rendezvous point', leave && 'L leave', join && 'J join');
      return item(
        `multicast info, instance ID ${lcaf.iid}`,
        flags === '' ? undefined : flags,
        addressItem('source', lcaf.source, lcaf.sourceMaskLength),
        addressItem('group', lcaf.group, lcaf.groupMaskLength),
      );
    }
    case 'explicit-path':
      return item(
        'explicit locator path',
        ...lcaf.hops.map(({ lookup, probe, strict, address }, i) => {
          const flags = parts(lookup && 'L lookup', probe && 'P probe', strict && 'S strict');
          return addressItem(`hop ${i + 1}`, address, undefined, ...(flags === '' ? [] : [flags]));
        }),
      );
    case 'security-key':
      return item(
        `security key, algorithm ${lcaf.algorithm}${lcaf.revoked ? ', R revoked' : ''}`,
        ...lcaf.keys.map((key, i) => `key ${i + 1} ${octets(key)}`),
        addressItem('address', lcaf.address),
      );
    case 'source-destination':
      return item(
        'source/destination',
        addressItem('source', lcaf.source, lcaf.sourceMaskLength),
        addressItem('destination', lcaf.destination, lcaf.destinationMaskLength),
      );
    case 'replication-list':
      return item(
        'replication list',
        ...lcaf.entries.map(({ level, address }, i) => addressItem(`entry ${i + 1}, level ${level}:`, address)),
      );
    case 'json': {
      const text = lcaf.binary ? octets(lcaf.json) : quoted(new TextDecoder().decode(lcaf.json));
      return item(`JSON${lcaf.binary ? ', B binary' : ''}`, text, addressItem('address', lcaf.address));
    }
    case 'key-value':
      return item('key/value', addressItem('key', lcaf.key), addressItem('value', lcaf.value));
    case 'encapsulation': {
      const formats = lcaf.formats.length === 0 ? 'none' : lcaf.formats.join(', ');
      return item(`encapsulation format ${formats}`, addressItem('address', lcaf.address));
    }
    case 'vendor':
      return item(`vendor specific, OUI ${hexNumber(lcaf.oui, 6)}`, `data ${octets(lcaf.data)}`);
    case 'lcaf':
      return item('of an unknown type', `flags ${hexNumber(lcaf.flags, 2)}`, `body ${octets(lcaf.body)}`);
    default:
      return lcaf satisfies never;
  }
}

function range({ from, to }: PortRange): string {
  return from === to ? String(from) : `${from}-${to}`;
}

function angle({ positive, degrees, minutes, seconds }: Angle, positiveSide: string, negativeSide: string): string {
  return `${degrees}°${minutes}′${seconds}″${positive ? positiveSide : negativeSide}`;
}
