import type { Command } from 'commander';
import { type ClientOptions, callAgent, withClientOptions } from '../agent-client.ts';
import { formatDuration, printJson, printTable } from '../output.ts';

interface Peer {
  readonly publicKey: string;
  readonly endpoint: { readonly address: string; readonly port: number } | null;
  readonly session: string;
  readonly lastReceivedMs: number | null;
  readonly rttUs: number | null;
  readonly pathMtu: number;
  readonly txBytes: number;
  readonly rxBytes: number;
  readonly eids: readonly string[];
}

interface Rloc {
  readonly rloc: string;
  readonly state: string;
  readonly rttMs: number | null;
  readonly eids: readonly string[];
}

interface PeersOptions extends ClientOptions {
  readonly sites?: true;
}

export function registerPeersCommand(program: Command): void {
  withClientOptions(program.command('peers').description('The agents that this host exchanges packets with'))
    .option('--sites', 'instead, the RLOCs of LISP sites, and whether they answer probes')
    .action(async (options: PeersOptions) => {
      if (options.sites === true) return printRlocs(options);
      const { peers } = (await callAgent(options, 'GET', '/v1/peers')) as { peers: readonly Peer[] };
      if (options.json === true) return printJson(peers);
      return printTable(
        [
          ['key', 'PEER'],
          ['session', 'SESSION'],
          ['endpoint', 'LOCATOR'],
          ['heard', 'HEARD'],
          ['rtt', 'RTT'],
          ['pathMtu', 'MTU'],
          ['tx', 'SENT'],
          ['rx', 'RECEIVED'],
          ['eids', 'EIDS'],
        ],
        peers.map((peer) => ({
          key: `${peer.publicKey.slice(0, 12)}…`,
          session: peer.session,
          endpoint: peer.endpoint === null ? null : `${bracketed(peer.endpoint.address)}:${peer.endpoint.port}`,
          heard: peer.lastReceivedMs === null ? null : `${formatDuration(peer.lastReceivedMs)} ago`,
          rtt: peer.rttUs === null ? null : `${(peer.rttUs / 1000).toFixed(2)} ms`,
          pathMtu: peer.pathMtu,
          tx: peer.txBytes,
          rx: peer.rxBytes,
          eids: peer.eids.join(' '),
        })),
      );
    });
}

async function printRlocs(options: ClientOptions): Promise<void> {
  const { rlocs } = (await callAgent(options, 'GET', '/v1/rlocs')) as { rlocs: readonly Rloc[] };
  if (options.json === true) return printJson(rlocs);
  return printTable(
    [
      ['rloc', 'RLOC'],
      ['state', 'STATE'],
      ['rtt', 'RTT'],
      ['eids', 'EIDS'],
    ],
    rlocs.map(({ rloc, state, rttMs, eids }) => ({
      rloc,
      state,
      rtt: rttMs === null ? null : `${rttMs.toFixed(2)} ms`,
      eids: eids.join(' '),
    })),
  );
}

function bracketed(address: string): string {
  return address.includes(':') ? `[${address}]` : address;
}
