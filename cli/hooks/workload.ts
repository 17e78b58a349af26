/** What every hook ends in: something happened to the workload of an EID behind an interface of this host. */
import type { IpPrefix } from '../../proto/address.ts';
import { parseIpPrefix } from '../../proto/address.ts';
import { UsageError } from '../../proto/errors.ts';
import { type ClientOptions, callAgent } from '../agent-client.ts';

export interface WorkloadEvent {
  /**
   * `here`: it is behind the interface, or will be as soon as that comes up; then the EID becomes live.
   * `expected`: the interface may be up long before it; the EID becomes live with its first sign of life.
   * `gone`: it ended or left. The EID is given up unless another host has taken it over, or it has come back, after a
   * while; until then packets for it are held.
   */
  readonly what: 'expected' | 'here' | 'gone';
  readonly eid: IpPrefix;
  readonly interface: string;
  /** Names that point to it. Empty: those it has. */
  readonly names: readonly string[];
}

export async function tellAgent(events: readonly WorkloadEvent[], options: ClientOptions): Promise<void> {
  for (const event of events) {
    if (event.what === 'gone') {
      const path = `/v1/eids/${encodeURIComponent(event.eid)}/leave`;
      await callAgent(options, 'POST', path, { interface: event.interface, patienceSeconds: PATIENCE_SECONDS });
    } else {
      await callAgent(options, 'POST', '/v1/eids', {
        eid: event.eid,
        interface: event.interface,
        ...(event.what === 'expected' ? { when: 'seen' } : {}),
        ...(event.names.length === 0 ? {} : { names: event.names }),
      });
    }
  }
}

/** @throws UsageError naming where it came from */
export function checkedEid(text: string, source: string): IpPrefix {
  try {
    return parseIpPrefix(text);
  } catch (cause) {
    throw new UsageError(`${source}: ${(cause as Error).message}`, { cause });
  }
}

/** @throws UsageError naming where it came from */
export function checkedInterface(text: string, source: string): string {
  if (/^[^\s/:]{1,15}$/.test(text)) return text;
  throw new UsageError(`${source}: ${JSON.stringify(text.slice(0, 40))} is no name of an interface`);
}

/** Longer than a migration's switch-over, shorter than anybody waits for a service that was stopped. */
const PATIENCE_SECONDS = 30;
