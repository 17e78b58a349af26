/**
 * The servers that are measured, each on 127.0.0.1:53 of the first host with the resolver of the second one as its
 * upstream: Stayput's agent as it is installed, dnsmasq and unbound as forwarders on one thread, all with room in the
 * cache for every name. One name of the overlay is known to each by itself.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { VERSION } from '../../runtime/project-root.ts';
import type { LabProcess } from '../../test/lab/lab-process.ts';
import { Overlay } from '../../test/lab/overlay.ts';
import { attachmentOf, type Link } from '../link.ts';
import { firstLine } from '../peer-programs.ts';

export const OVERLAY_NAME = 'db.stayput.internal';

export interface DnsSystem {
  readonly name: string;
  readonly version: string;
  /** Follows a change of the resolv.conf that it was started with. */
  readonly follows: boolean;
  start(link: Link, setup: DnsSetup): Promise<RunningDns>;
}

export interface DnsSetup {
  readonly cacheEntries: number;
  /** With the address of the upstream. */
  readonly resolvConf: string;
  readonly upstream: string;
}

export interface RunningDns {
  readonly process: LabProcess;
  /** SIGKILL, and at once another one. */
  restart(): Promise<RunningDns>;
}

export function stayputDns(dataplane: string): DnsSystem {
  return {
    name: 'stayput',
    version: VERSION,
    follows: true,
    start: async (link, { cacheEntries, resolvConf }) => {
      const at = attachmentOf(link.a);
      const overlay = await Overlay.start(at, { dataplane, prefixes: ['10.77.0.0/16'] });
      const dns = { listen: ['127.0.0.1:53'], resolvConf, cacheEntries };
      const agent = await overlay.join(at, { eids: [`${link.a.inner}/32`], names: ['db'], config: { dns } });
      const running = (): RunningDns => ({
        process: agent.daemon.process,
        restart: async () => {
          await agent.daemon.kill9();
          agent.start();
          return running();
        },
      });
      return running();
    },
  };
}

export const DNSMASQ: DnsSystem = {
  name: 'dnsmasq',
  version: '',
  follows: true,
  start: (link, { cacheEntries, resolvConf }) =>
    spawned(link, 'dnsmasq', [
      ...DNSMASQ_BASE,
      ...['--listen-address=127.0.0.1', `--resolv-file=${resolvConf}`, `--cache-size=${cacheEntries}`],
      `--host-record=${OVERLAY_NAME},${link.a.inner}`,
    ]),
};

export const UNBOUND: DnsSystem = {
  name: 'unbound',
  version: '',
  follows: false,
  start: (link, { upstream }) => {
    const file = join(link.a.host.dir, 'unbound.conf');
    writeFileSync(file, unboundConf(link.a.inner, upstream));
    return spawned(link, 'unbound', ['unbound', '-d', '-c', file]);
  },
};

export function peerDnsSystems(): readonly DnsSystem[] {
  return [
    { ...DNSMASQ, version: /version (\S+)/.exec(firstLine('dnsmasq', '--version'))?.[1] ?? 'unknown' },
    { ...UNBOUND, version: /(\d[\d.]+)/.exec(firstLine('unbound', '-V'))?.[1] ?? 'unknown' },
  ];
}

/** A resolver on the second host that answers every name below bench.example alike. */
export function startUpstream(link: Link, address: string, answer: string): LabProcess {
  return link.b.host.spawn('upstream', [
    ...DNSMASQ_BASE,
    ...[`--listen-address=${address}`, `--address=/bench.example/${answer}`, '--local-ttl=3600', '--no-resolv'],
  ]);
}

async function spawned(link: Link, name: string, argv: readonly string[]): Promise<RunningDns> {
  const start = (): RunningDns => {
    const process = link.a.host.spawn(name, argv);
    return {
      process,
      restart: async () => {
        await process.kill9();
        return start();
      },
    };
  };
  return start();
}

function unboundConf(inner: string, upstream: string): string {
  return `server:
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  num-threads: 1
  interface: 127.0.0.1
  do-not-query-localhost: no
  module-config: "iterator"
  msg-cache-size: 256m
  rrset-cache-size: 256m
  local-data: "${OVERLAY_NAME}. 30 IN A ${inner}"
forward-zone:
  name: "."
  forward-addr: ${upstream}
remote-control:
  control-enable: no
`;
}

const DNSMASQ_BASE = [
  ...['dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null', '--pid-file=', '--user=root', '--log-facility=-'],
  ...['--no-hosts', '--bind-interfaces', '--port=53'],
];
