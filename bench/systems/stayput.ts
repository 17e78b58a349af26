/** Stayput as it is installed: a map server (on host a), and an agent and a data plane on each host. */
import { VERSION } from '../../runtime/project-root.ts';
import { type Agent, Overlay } from '../../test/lab/overlay.ts';
import { attachmentOf, INNER_MTU, type Link } from '../link.ts';
import { firstLine } from '../peer-programs.ts';
import type { Running, System } from './system.ts';

export function stayput(dataplane: string): System {
  return {
    name: 'stayput',
    version: VERSION,
    encrypted: true,
    start: (link) => startStayput(link, dataplane),
  };
}

/** Another build of the data plane, with this version of everything else. */
export function stayputBuild(name: string, dataplane: string): System {
  return {
    ...stayput(dataplane),
    name,
    version: firstLine(dataplane, '--version').replace(/^stayput-dataplane\s+/, ''),
  };
}

/** What it would be without the cost of encryption: a build for this measurement only. */
export function stayputPlaintext(dataplane: string): System {
  return { ...stayput(dataplane), name: 'stayput-plaintext', encrypted: false };
}

/** An agent at each end that has the inner address of it. */
export async function joinBoth(link: Link, dataplane: string): Promise<{ readonly a: Agent; readonly b: Agent }> {
  const overlay = await Overlay.start(attachmentOf(link.a), { dataplane, prefixes: ['10.77.0.0/16'] });
  const config = { mtu: INNER_MTU };
  const a = await overlay.join(attachmentOf(link.a), { eids: [`${link.a.inner}/32`], config });
  const b = await overlay.join(attachmentOf(link.b), { eids: [`${link.b.inner}/32`], config });
  return { a, b };
}

async function startStayput(link: Link, dataplane: string): Promise<Running> {
  const { a, b } = await joinBoth(link, dataplane);
  const processes = (agent: Agent) => [agent.dataplane.process, agent.daemon.process];
  return {
    addressA: link.a.inner,
    addressB: link.b.inner,
    interface: 'stayput0',
    processesA: processes(a),
    processesB: processes(b),
    forwarders: [a.dataplane.process, b.dataplane.process],
  };
}
