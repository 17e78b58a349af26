/**
 * The underlay of all stories: a core router `internet`, and clouds around it, each a router and a switch with a
 * prefix of its own per family. A host in a cloud has one cable to its switch and its default route to its router.
 */
import { delayedCable } from './delayed-cable.ts';
import { type Host, Lab, type Plug, type Switch } from './lab.ts';

export interface Cloud {
  readonly name: string;
  readonly router: Host;
  readonly switch: Switch;
  /** First three octets. */
  readonly prefix4: string;
  /** First 64 bits. */
  readonly prefix6: string;
}

export interface Attachment {
  readonly host: Host;
  readonly plug: Plug;
  cloud: Cloud;
  /** Empty where the underlay does not have the family. */
  address4: string;
  address6: string;
}

export interface InternetOptions {
  readonly clouds: readonly string[];
  /** Give the underlay IPv4, IPv6 or both. */
  readonly families?: readonly (4 | 6)[];
  /** MTU of the cables between clouds and core. */
  readonly mtu?: number;
  /** Round trip between two clouds, made by the cables to the core; 0: as fast as the machine. */
  readonly roundTripMs?: number;
  /** Share of packets lost on the way from one cloud to another, 0 to 1. */
  readonly loss?: number;
}

/** Moments of CLOCK_MONOTONIC in nanoseconds, as `process.hrtime.bigint()` gives them. */
export interface RoamTimes {
  /** Just before the cable was pulled. */
  readonly pulled: bigint;
  /** Just before the kernel was told the new address and its default route; the cable is in its place and carries. */
  readonly usable: bigint;
}

/** A second way out of a host. */
export interface Uplink {
  readonly interface: string;
  readonly address4: string;
}

export type Direction = 'in' | 'out' | 'both';

export class Internet {
  readonly lab: Lab;
  readonly core: Host;
  private readonly clouds = new Map<string, Cloud>();
  private readonly families: readonly (4 | 6)[];
  private hostCount = 9;

  private constructor(lab: Lab, core: Host, families: readonly (4 | 6)[]) {
    this.lab = lab;
    this.core = core;
    this.families = families;
  }

  static async build(lab: Lab, options: InternetOptions): Promise<Internet> {
    const internet = new Internet(lab, await lab.host('internet', { router: true }), options.families ?? [4, 6]);
    for (const [i, name] of options.clouds.entries()) await internet.addCloud(name, i + 1, options);
    return internet;
  }

  /**
   * A data centre of its own: `prefix4` (three octets) is known to nobody outside, and its router puts its one public
   * address on what leaves. For an internet of IPv4 alone.
   */
  async addPrivateCloud(name: string, prefix4: string): Promise<{ readonly address4: string }> {
    const index = this.clouds.size + 1;
    const router = await this.lab.host(`cloud-${name}`, { router: true });
    const cloud: Cloud = { name, router, switch: await this.lab.switch(`sw-${name}`), prefix4, prefix6: '' };
    this.clouds.set(name, cloud);
    await this.lab.plug(router, 'lan0', cloud.switch);
    await this.lab.cable(router, 'wan0', this.core, `to-${name}`);
    const address4 = `198.19.${index}.2`;
    await router.ip([
      `addr add ${prefix4}.1/24 dev lan0`,
      `addr add ${address4}/30 dev wan0`,
      `route add default via 198.19.${index}.1`,
    ]);
    await router.exec(['iptables', '-t', 'nat', '-A', 'POSTROUTING', '-o', 'wan0', '-j', 'MASQUERADE']);
    await this.core.ip([`addr add 198.19.${index}.1/30 dev to-${name}`]);
    return { address4 };
  }

  cloud(name: string): Cloud {
    const cloud = this.clouds.get(name);
    if (cloud === undefined) throw new Error(`no cloud ${name}`);
    return cloud;
  }

  /** A new host with one network interface, `eth0`. */
  async attach(name: string, cloudName: string): Promise<Attachment> {
    const cloud = this.cloud(cloudName);
    const host = await this.lab.host(name);
    const plug = await this.lab.plug(host, 'eth0', cloud.switch);
    const attachment = { host, plug, cloud, ...this.newAddresses(cloud) };
    await this.lab.carries(plug);
    await host.ip(this.addressing(attachment, 'add'));
    return attachment;
  }

  /**
   * Prepares that a host's cable is pulled out of its cloud and put into another: new addresses and default route,
   * the old ones gone. What the returned function does then takes a few milliseconds.
   */
  prepareRoam(attachment: Attachment, cloudName: string): () => Promise<RoamTimes> {
    const cloud = this.cloud(cloudName);
    const next = { ...attachment, cloud, ...this.newAddresses(cloud) };
    const wires = this.lab.wires.ipConsole();
    const leaving = attachment.host.ipConsole();
    const arriving = attachment.host.ipConsole();
    return async () => {
      const pulled = process.hrtime.bigint();
      await wires.run(Lab.replug(attachment.plug, cloud.switch));
      await leaving.run(this.addressing(attachment, 'del'));
      await this.lab.carries(attachment.plug);
      const usable = process.hrtime.bigint();
      await arriving.run(this.addressing(next, 'add'));
      Object.assign(attachment, next);
      return { pulled, usable };
    };
  }

  /**
   * A second interface of a host, `eth1`, in another cloud. What is sent from its address leaves through it; for the
   * rest the first interface stays the way out. IPv4.
   */
  async addUplink(attachment: Attachment, cloudName: string): Promise<Uplink> {
    const cloud = this.cloud(cloudName);
    const { address4 } = this.newAddresses(cloud);
    const name = 'eth1';
    await this.lab.plug(attachment.host, name, cloud.switch);
    await attachment.host.ip([
      `addr add ${address4}/24 dev ${name}`,
      `route add default via ${cloud.prefix4}.1 dev ${name} metric 200`,
      `route add default via ${cloud.prefix4}.1 dev ${name} table 101`,
      `rule add from ${address4} lookup 101`,
    ]);
    return { interface: name, address4 };
  }

  /**
   * Prepares that the core drops everything to (`in`), from (`out`) or to and from an IPv4 address, and tells nobody.
   * Links stay up. `end` lets it pass again.
   */
  prepareSilence(address4: string, direction: Direction): { begin(): Promise<void>; end(): Promise<void> } {
    const rules = (direction === 'both' ? ['to', 'from'] : [direction === 'in' ? 'to' : 'from']).map(
      (end) => `pref 10 ${end} ${address4} blackhole`,
    );
    const console = this.core.ipConsole();
    return {
      begin: () => console.run(rules.map((rule) => `rule add ${rule}`)),
      end: () => this.core.ip(rules.map((rule) => `rule del ${rule}`)),
    };
  }

  /** All addresses of an IPv4 prefix become this host's, wherever it is asked from. */
  async routeHere({ host, cloud, address4 }: Attachment, prefix: string): Promise<void> {
    await host.ip([`route add local ${prefix} dev lo`]);
    await cloud.router.ip([`route add ${prefix} via ${address4}`]);
    const link = cloud.prefix4.replace('198.18.', '198.19.');
    await this.core.ip([`route add ${prefix} via ${link}.2`]);
  }

  /** Round trip of the bare underlay in milliseconds: the median of 21 pings, as the first ones wait for ARP. */
  async underlayRttMs(from: Host, to: Attachment): Promise<number> {
    const target = this.families.includes(4) ? to.address4 : to.address6;
    const { stdout } = await from.exec(['ping', '-n', '-c', '21', '-i', '0.01', '-W', '2', target]);
    const times = [...stdout.matchAll(/time=([\d.]+) ms/g)].map(([, ms]) => Number(ms)).sort((x, y) => x - y);
    return times[Math.floor(times.length / 2)] ?? Number.NaN;
  }

  private async addCloud(name: string, index: number, options: InternetOptions): Promise<void> {
    const { mtu = 1500, roundTripMs = 0, loss = 0 } = options;
    const router = await this.lab.host(`cloud-${name}`, { router: true });
    const cloud: Cloud = {
      name,
      router,
      switch: await this.lab.switch(`sw-${name}`),
      prefix4: `198.18.${index}`,
      prefix6: `2001:db8:${index}:0`,
    };
    this.clouds.set(name, cloud);
    await this.lab.plug(router, 'lan0', cloud.switch);
    if (roundTripMs === 0 && loss === 0) await this.lab.cable(router, 'wan0', this.core, `to-${name}`);
    else {
      // A way passes two cables, a round trip each of them twice.
      const cable = { delayMs: roundTripMs / 4, loss: 1 - Math.sqrt(1 - loss) };
      await delayedCable(router, 'wan0', this.core, `to-${name}`, cable);
    }
    const [four, six] = [this.families.includes(4), this.families.includes(6)];
    await router.ip([
      `link set wan0 mtu ${mtu}`,
      ...(four ? [`addr add ${cloud.prefix4}.1/24 dev lan0`, `addr add 198.19.${index}.2/30 dev wan0`] : []),
      ...(four ? [`route add default via 198.19.${index}.1`] : []),
      ...(six
        ? [`addr add ${cloud.prefix6}::1/64 dev lan0 nodad`, `addr add 2001:db8:f${index}::2/64 dev wan0 nodad`]
        : []),
      ...(six ? [`route add default via 2001:db8:f${index}::1`] : []),
    ]);
    await this.core.ip([
      `link set to-${name} mtu ${mtu}`,
      ...(four ? [`addr add 198.19.${index}.1/30 dev to-${name}`] : []),
      ...(four ? [`route add ${cloud.prefix4}.0/24 via 198.19.${index}.2`] : []),
      ...(six ? [`addr add 2001:db8:f${index}::1/64 dev to-${name} nodad`] : []),
      ...(six ? [`route add ${cloud.prefix6}::/64 via 2001:db8:f${index}::2`] : []),
    ]);
  }

  private newAddresses(cloud: Cloud): { address4: string; address6: string } {
    this.hostCount += 1;
    const [four, six] = [this.families.includes(4), this.families.includes(6)];
    return {
      address4: four ? `${cloud.prefix4}.${this.hostCount}` : '',
      address6: six ? `${cloud.prefix6}::${this.hostCount}` : '',
    };
  }

  private addressing({ cloud, address4, address6 }: Attachment, verb: 'add' | 'del'): string[] {
    const four = [`addr ${verb} ${address4}/24 dev eth0`, `route add default via ${cloud.prefix4}.1 dev eth0`];
    const six = [
      `addr ${verb} ${address6}/64 dev eth0${verb === 'add' ? ' nodad' : ''}`,
      verb === 'add'
        ? `route add default via ${cloud.prefix6}::1 dev eth0`
        : `route del default via ${cloud.prefix6}::1 dev eth0`,
    ];
    return [
      // The kernel takes a route with its last address of IPv4, but keeps one of IPv6.
      ...(this.families.includes(4) ? (verb === 'add' ? four : four.slice(0, 1)) : []),
      ...(this.families.includes(6) ? six : []),
    ];
  }
}
