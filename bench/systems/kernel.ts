/** What the kernel does without anybody's help, as a scale for the others: the bare cable, and VXLAN in plaintext. */
import { CABLE, INNER_MTU, type Link } from '../link.ts';
import type { Running, System } from './system.ts';

export const RAW: System = {
  name: 'raw',
  version: 'veth',
  encrypted: false,
  start: (link) =>
    Promise.resolve({
      addressA: link.a.address,
      addressB: link.b.address,
      interface: CABLE,
      processesA: [],
      processesB: [],
    }),
};

export const VXLAN: System = {
  name: 'vxlan',
  version: 'kernel',
  encrypted: false,
  start: startVxlan,
};

async function startVxlan(link: Link): Promise<Running> {
  for (const end of link.ends) {
    const remote = link.other(end).address;
    await end.host.ip([
      `link add vxlan0 type vxlan id 77 local ${end.address} remote ${remote} dstport 4789 dev ${CABLE}`,
      `link set vxlan0 mtu ${INNER_MTU} up`,
      `addr add ${end.inner}/24 dev vxlan0`,
    ]);
  }
  return {
    addressA: link.a.inner,
    addressB: link.b.inner,
    interface: 'vxlan0',
    processesA: [],
    processesB: [],
  };
}
