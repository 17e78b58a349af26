/** Two hosts joined by one cable: the machine that every system is measured on, new for each of them. */
import { readFileSync } from 'node:fs';
import type { Attachment } from '../test/lab/internet.ts';
import { type Host, Lab } from '../test/lab/lab.ts';
import { waitFor } from '../test/lab/wait.ts';

export const LINK_MTU = 1500;
export const INNER_MTU = 1420;

export interface End {
  readonly host: Host;
  /** On the cable. */
  readonly address: string;
  /** What a tunnel is to carry, in 10.77.0.0/16. */
  readonly inner: string;
}

export class Link {
  readonly lab: Lab;
  readonly a: End;
  readonly b: End;

  private constructor(lab: Lab, a: End, b: End) {
    this.lab = lab;
    this.a = a;
    this.b = b;
  }

  /** Offloads of the cable stay as the kernel makes them. */
  static async lay(): Promise<Link> {
    const lab = await Lab.create({ name: 'bench' });
    try {
      const a: End = { host: await lab.host('a'), address: '192.0.2.1', inner: '10.77.0.1' };
      const b: End = { host: await lab.host('b'), address: '192.0.2.2', inner: '10.77.0.2' };
      await lab.cable(a.host, CABLE, b.host, CABLE);
      for (const { host, address } of [a, b]) {
        await host.ip([`link set ${CABLE} mtu ${LINK_MTU}`, `addr add ${address}/24 dev ${CABLE}`]);
      }
      return new Link(lab, a, b);
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  get ends(): readonly [End, End] {
    return [this.a, this.b];
  }

  other(end: End): End {
    return end === this.a ? this.b : this.a;
  }

  close(): Promise<void> {
    return this.lab.close();
  }
}

export const CABLE = 'eth0';

/** An end in the words of the lab's overlay, which knows clouds and switches; of them there are none here. */
export function attachmentOf(end: End): Attachment {
  return {
    host: end.host,
    plug: { host: end.host, interface: CABLE, port: CABLE },
    cloud: { name: 'cable', router: end.host, switch: { name: 'cable' }, prefix4: '192.0.2', prefix6: '' },
    address4: end.address,
    address6: '',
  };
}

/** Waits for an interface that a daemon makes. */
export async function waitForInterface(host: Host, name: string): Promise<void> {
  await waitFor(`interface ${name} on host ${host.name}`, async () => {
    const { code } = await host.exec(['ip', 'link', 'show', 'dev', name], { anyExit: true });
    return code === 0;
  });
}

export async function mtuOf(end: End, networkInterface: string): Promise<number> {
  const { stdout } = await end.host.exec(['ip', '-j', 'link', 'show', 'dev', networkInterface]);
  return (JSON.parse(stdout) as { mtu: number }[])[0]?.mtu ?? Number.NaN;
}

/** CPU seconds, in user and kernel mode and of all threads, that a process has used. */
export function cpuSeconds(pid: number): number {
  return parseCpuSeconds(readFileSync(`/proc/${pid}/stat`, 'utf8'));
}

/** The name of the program, in parentheses, may hold spaces and parentheses itself. */
export function parseCpuSeconds(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** USER_HZ: the same on every architecture that Node runs on. */
const TICKS_PER_SECOND = 100;
