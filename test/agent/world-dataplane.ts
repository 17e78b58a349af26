/** The data plane of an agent in virtual time, as far as the agent can tell. */
import { strict as assert } from 'node:assert';
import { hostPrefix, type IpPrefix, parseIpAddress } from '../../proto/address.ts';
import { CAPABILITY } from '../../proto/capability.ts';
import type { DataplaneCommand, ForwardingReply, PlainRules } from '../../proto/dataplane/messages.ts';
import type { Generation, TunnelKey } from '../../proto/mapping.ts';
import type { AgentPolicy } from '../../proto/policy.ts';

/** The table that the commands make, with the data plane's rules: older generations are ignored, sync removes the rest. */
export class FakeDataplaneState {
  readonly process: string;
  capability = CAPABILITY;
  configured = false;
  epoch = 0;
  policy: AgentPolicy | null = null;
  plain: PlainRules | null = null;
  readonly log: DataplaneCommand[] = [];
  readonly peers = new Map<TunnelKey, readonly string[]>();
  readonly mappings = new Map<IpPrefix, { generation: Generation; to: TunnelKey | 'plain' | 'drop' }>();
  readonly locals = new Map<
    IpPrefix,
    { generation: Generation; interface: string | null; redirectFrom: TunnelKey | null }
  >();
  readonly redirects = new Map<IpPrefix, TunnelKey | null>();
  readonly watches = new Set<string>();
  /** Who talked to an EID lately. */
  readonly correspondents = new Map<IpPrefix, readonly TunnelKey[]>();
  private unmentioned: Set<string> | null = null;
  private policyMentioned = false;

  constructor(process = 'one') {
    this.process = process;
  }

  /** Where packets for the address go. */
  route(eid: string): TunnelKey | 'plain' | 'drop' | 'here' | 'miss' {
    const prefix = hostPrefix(parseIpAddress(eid));
    if (this.locals.has(prefix)) return 'here';
    return this.mappings.get(prefix)?.to ?? 'miss';
  }

  forwarding(): ForwardingReply {
    const peers = [...this.peers].map(([publicKey, locators]) => ({ publicKey, locators: locators.map(locatorAt) }));
    const mappings = [...this.mappings].flatMap(([prefix, { generation, to }]) =>
      to === 'drop' || to === 'plain' ? [] : [{ prefix, generation, publicKey: to }],
    );
    return { peers, mappings };
  }

  types(): readonly string[] {
    return this.log.map(({ type }) => type);
  }

  apply(command: DataplaneCommand): void {
    this.log.push(command);
    switch (command.type) {
      case 'configure':
        assert(command.epoch >= this.epoch);
        this.epoch = command.epoch;
        this.configured = true;
        return;
      case 'sync-begin':
        this.policyMentioned = false;
        this.unmentioned = new Set([...this.peers.keys(), ...this.mappings.keys(), ...this.locals.keys()]);
        return;
      case 'sync-end':
        for (const key of this.unmentioned ?? []) {
          this.peers.delete(key as TunnelKey);
          this.mappings.delete(key as IpPrefix);
          this.locals.delete(key as IpPrefix);
        }
        if (!this.policyMentioned) this.policy = null;
        this.unmentioned = null;
        return;
      case 'policy-set': {
        const { version, default: byDefault, rules } = command;
        this.policy = { version, default: byDefault, rules };
        this.policyMentioned = true;
        return;
      }
      case 'plain-set': {
        const { instance, gateway, sites } = command;
        this.plain = { instance, gateway, sites };
        return;
      }
      case 'peer-set':
        this.unmentioned?.delete(command.publicKey);
        this.peers.set(
          command.publicKey,
          command.locators.map(({ address, port }) => `${address}:${port}`),
        );
        return;
      case 'peer-remove':
        this.peers.delete(command.publicKey);
        return;
      case 'mapping-set':
        this.unmentioned?.delete(command.prefix);
        if ((this.mappings.get(command.prefix)?.generation ?? 0) > command.generation) return;
        if (command.publicKey !== undefined) assert(this.peers.has(command.publicKey), 'a mapping to an unknown peer');
        this.mappings.set(command.prefix, {
          generation: command.generation,
          to: command.publicKey ?? (command.action === 'plain' ? 'plain' : 'drop'),
        });
        return;
      case 'mapping-remove':
        this.mappings.delete(command.prefix);
        return;
      case 'local-eid-set': {
        const { generation, interface: via, redirectFrom } = command;
        this.unmentioned?.delete(command.prefix);
        this.locals.set(command.prefix, { generation, interface: via, redirectFrom });
        this.redirects.delete(command.prefix);
        return;
      }
      case 'local-eid-remove':
        this.locals.delete(command.prefix);
        this.redirects.set(command.prefix, command.redirectTo);
        return;
      case 'interface-watch':
        this.watches.add(command.name);
        return;
      case 'interface-unwatch':
        this.watches.delete(command.name);
        return;
      case 'hello':
      case 'probe':
      case 'peer-send':
      case 'workload-watch':
      case 'workload-unwatch':
      case 'correspondents':
      case 'stats':
      case 'peers':
      case 'forwarding':
      case 'sleep':
      case 'wake':
        return;
      default:
        command satisfies never;
    }
  }
}

function locatorAt(text: string) {
  const [address = '', port] = text.split(':');
  return { address: parseIpAddress(address), port: Number(port), priority: 1, weight: 100 };
}
