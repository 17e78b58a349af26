/** The DNS server's view of the agent: names and addresses of the overlay through the map-cache. */
import { hostPrefix, type IpAddress, type IpPrefix } from '../../proto/address.ts';
import { APEX, type EidKey, eidKey, type InstanceId, prefixEid, zoneNameEid } from '../../proto/eid.ts';
import { DecodeError } from '../../proto/errors.ts';
import type { AgentDriver } from './driver.ts';
import type { NameAnswer, NameResolver, PointerAnswer } from './name-resolver.ts';

export class CachedNameResolver implements NameResolver {
  private readonly driver: AgentDriver;
  private readonly instance: InstanceId;

  constructor(driver: AgentDriver, instance: InstanceId) {
    this.driver = driver;
    this.instance = instance;
  }

  get zone(): string {
    return this.driver.overlayZone;
  }

  get overlay(): readonly IpPrefix[] {
    return this.driver.agent.overlayPrefixes;
  }

  get version(): number {
    return this.driver.version;
  }

  async resolveName(name: string): Promise<NameAnswer> {
    try {
      const eid = zoneNameEid(this.instance, name);
      const unasked = name === APEX ? this.unaskedApex(eidKey(eid)) : undefined;
      if (unasked !== undefined) return { kind: unasked };
      const resolution = await this.driver.resolve(eid);
      if (resolution.kind !== 'found') return { kind: resolution.kind };
      const { mapping, stale } = resolution;
      const { targets: addresses, zone } = mapping;
      return addresses.length > 0 || zone !== undefined
        ? { kind: 'found', addresses, zone, stale }
        : { kind: 'absent' };
    } catch (error) {
      // What is not a host name cannot have been registered.
      return { kind: error instanceof DecodeError ? 'absent' : 'unavailable' };
    }
  }

  /** What is answered without asking; undefined where a map server that knows of it can be asked, or was before. */
  private unaskedApex(key: EidKey): 'absent' | 'unavailable' | undefined {
    const { knowsApex, agent } = this.driver;
    if (knowsApex === true || (knowsApex === null && agent.cached().some((entry) => entry.key === key)))
      return undefined;
    return knowsApex === null ? 'unavailable' : 'absent';
  }

  async resolvePointer(address: IpAddress): Promise<PointerAnswer> {
    try {
      const resolution = await this.driver.resolve(prefixEid(this.instance, hostPrefix(address)));
      if (resolution.kind !== 'found') return { kind: resolution.kind };
      const { mapping, stale } = resolution;
      const exact = mapping.eid.kind === 'prefix' && mapping.eid.prefix === hostPrefix(address);
      return exact && mapping.names.length > 0 ? { kind: 'found', names: mapping.names, stale } : { kind: 'absent' };
    } catch {
      return { kind: 'unavailable' };
    }
  }
}
