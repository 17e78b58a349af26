/**
 * libvirt's `qemu` hook (libvirt.org/hooks.html): called with guest, operation, sub-operation and an extra argument,
 * the domain's XML on standard input. Which EIDs a guest has stands in its metadata:
 *
 *     <metadata>
 *       <stayput:workload xmlns:stayput="urn:stayput:workload:1">
 *         <stayput:eid address="10.77.0.9" name="db" mac="52:54:00:00:00:09"/>
 *       </stayput:workload>
 *     </metadata>
 *
 * `mac` picks one of several interfaces; without it the first one is meant. `started` comes on the host where a guest
 * is started, and on the target of a migration as soon as its QEMU waits for the guest: from then on the EID is
 * expected behind the guest's tap device. `stopped` comes when a guest has ended, and on the source of a migration.
 */
import { parseXml, XmlElement } from '@rgrove/parse-xml';
import { UsageError } from '../../proto/errors.ts';
import { checkedEid, checkedInterface, type WorkloadEvent } from './workload.ts';

/** @throws UsageError when the XML, or what it says of EIDs, cannot be used */
export function libvirtEvents(operation: string, subOperation: string, xml: string): WorkloadEvent[] {
  const what = OPERATIONS[`${operation} ${subOperation}`];
  if (what === undefined) return [];
  const domain = parsedDomain(xml);
  const workload = child(child(domain, 'metadata'), 'stayput:workload');
  if (workload === undefined) return [];
  if (workload.attributes['xmlns:stayput'] !== NAMESPACE) {
    throw new UsageError(`the domain's metadata: stayput:workload must have xmlns:stayput="${NAMESPACE}"`);
  }
  const interfaces = children(child(domain, 'devices'), 'interface');
  return children(workload, 'stayput:eid').map((eid) => {
    const { address = '', mac, name } = eid.attributes;
    return {
      what,
      eid: checkedEid(address, 'the domain’s metadata, stayput:eid'),
      interface: tapOf(interfaces, mac),
      names: name === undefined ? [] : [name],
    };
  });
}

function tapOf(interfaces: readonly XmlElement[], mac: string | undefined): string {
  const found = interfaces.find(
    (each) => mac === undefined || child(each, 'mac')?.attributes.address?.toLowerCase() === mac.toLowerCase(),
  );
  if (found === undefined) throw new UsageError(`the domain has no interface${mac === undefined ? '' : ` ${mac}`}`);
  const device = child(found, 'target')?.attributes.dev;
  if (device === undefined) throw new UsageError('the domain’s interface has no <target dev="…"/>');
  return checkedInterface(device, 'the domain’s interface');
}

function parsedDomain(xml: string): XmlElement {
  try {
    const { root } = parseXml(xml);
    if (root?.name === 'domain') return root;
  } catch (cause) {
    throw new UsageError(`standard input is no domain XML: ${(cause as Error).message.split('\n')[0]}`, { cause });
  }
  throw new UsageError('standard input is no domain XML');
}

function children(parent: XmlElement | undefined, name: string): XmlElement[] {
  return (parent?.children ?? []).filter(
    (each): each is XmlElement => each instanceof XmlElement && each.name === name,
  );
}

function child(parent: XmlElement | undefined, name: string): XmlElement | undefined {
  return children(parent, name)[0];
}

const NAMESPACE = 'urn:stayput:workload:1';

const OPERATIONS: Readonly<Record<string, WorkloadEvent['what']>> = {
  'started begin': 'expected',
  'reconnect begin': 'expected',
  'stopped end': 'gone',
};
