/**
 * OCI runtime hooks (runtime-spec, config.md): called with the container's state as JSON on standard input. A container
 * with the annotation `stayput.eid` gets an interface of its own with that address: at `createRuntime` the cable is laid
 * into the container's network namespace and the EID attached; at `poststop`, when its status is `stopped`, it is given
 * up. So a container that is started, or
 * restored from a checkpoint, on another host takes its address with it.
 */
import { createHash } from 'node:crypto';
import { readlink } from 'node:fs/promises';
import { z } from 'zod';
import { hostPrefix, type IpPrefix, prefixAddress } from '../../proto/address.ts';
import { UsageError } from '../../proto/errors.ts';
import { checkedEid, type WorkloadEvent } from './workload.ts';

export interface OciSteps {
  /** `ip -batch` lines for the host; those for the container's namespace, of which `pid` is a process. */
  readonly host: readonly string[];
  readonly container: readonly string[];
  readonly pid: number | null;
  readonly event: WorkloadEvent;
}

/** Null for a container without an EID. @throws UsageError when the state or its annotations cannot be used */
export function ociSteps(state: string): OciSteps | null {
  const { id, status, pid, annotations } = parsedState(state);
  const text = annotations?.['stayput.eid'];
  if (text === undefined) return null;
  const eid = checkedEid(text, 'annotation stayput.eid');
  const address = prefixAddress(eid);
  if (hostPrefix(address) !== eid) throw new UsageError(`annotation stayput.eid: ${text} is not one address`);
  const name = annotations?.['stayput.name'];
  const port = portOf(id);
  const event = { eid, interface: port, names: name === undefined ? [] : [name] } as const;
  if (status === 'stopped') return { host: [], container: [], pid: null, event: { ...event, what: 'gone' } };
  if (pid === undefined || pid === 0) throw new UsageError('the state of the container has no pid');
  return {
    host: [`link add ${port} type veth peer name ${CONTAINER_INTERFACE} netns ${pid}`, `link set ${port} up`],
    container: containerLines(eid),
    pid,
    event: { ...event, what: 'here' },
  };
}

function containerLines(eid: IpPrefix): string[] {
  const gateway = eid.includes(':') ? 'fe80::1' : '169.254.1.1';
  return [
    'link set lo up',
    `link set ${CONTAINER_INTERFACE} up`,
    `address add ${eid} dev ${CONTAINER_INTERFACE}${eid.includes(':') ? ' nodad' : ''}`,
    `route add default via ${gateway} dev ${CONTAINER_INTERFACE} onlink`,
  ];
}

/**
 * The container has a network of its own. Without one the container's address and default route would be the host's.
 * @throws UsageError if it shares that of the caller
 */
export async function demandOwnNetwork(pid: number): Promise<void> {
  const [container, own] = await Promise.all([readlink(`/proc/${pid}/ns/net`), readlink('/proc/self/ns/net')]);
  if (container !== own) return;
  throw new UsageError('the container shares the host’s network; one with an EID needs its own (--network none)');
}

/** Interface names have 15 characters at most; container IDs 64. */
function portOf(id: string): string {
  return `sp-${createHash('sha256').update(id).digest('hex').slice(0, 10)}`;
}

function parsedState(text: string): z.infer<typeof STATE> {
  try {
    return STATE.parse(JSON.parse(text));
  } catch (cause) {
    throw new UsageError('standard input is no state of an OCI container', { cause });
  }
}

const CONTAINER_INTERFACE = 'eth0';

const STATE = z.object({
  id: z.string().min(1).max(1024),
  status: z.enum(['creating', 'created', 'running', 'stopped']),
  pid: z.int().nonnegative().optional(),
  annotations: z.record(z.string(), z.string()).optional(),
});
