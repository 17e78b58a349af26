/**
 * What the cloud or hypervisor below this machine can tell it, behind one interface.
 *
 * A driver first says from local facts, without network, how sure it is that this is its platform. Only the driver that
 * was chosen then asks its platform. Nothing that a platform says is evidence: metadata services are plain HTTP on a
 * link-local address, and disks of the hypervisor are as old as the boot. It gives candidates for locators, which peers
 * probe before they use them, and what an operator wrote down for this instance. An EID never comes from the identity
 * of an instance, which is another one after a move; that of the workload is on its disk.
 */
import type { IpAddress } from '../../proto/address.ts';
import { StayputError } from '../../proto/errors.ts';
import type { LocalFacts } from './local-facts.ts';
import type { MetadataClient } from './metadata-client.ts';

/**
 * `certain`: a mark that only this platform makes. `likely`: a mark that others may make too. `possible`: nothing speaks
 * against it, but only its metadata service could tell, which is not asked unless the configuration names the platform.
 */
export type Confidence = 'certain' | 'likely' | 'possible' | 'none';

export interface Detection {
  readonly confidence: Confidence;
  /** What was seen, or what is missing, in a line. */
  readonly reason: string;
}

/** As in the configuration. */
export const PLATFORM_NAMES = [
  'ec2',
  'azure',
  'gce',
  'oracle',
  'digitalocean',
  'hetzner',
  'vultr',
  'akamai',
  'upcloud',
  'scaleway',
  'aliyun',
  'exoscale',
  'cloudstack',
  'opennebula',
  'openstack',
  'vsphere',
  'xen',
  'ovf',
  'nocloud',
  'eucalyptus',
  'kvm',
  'none',
] as const;

export type PlatformName = (typeof PLATFORM_NAMES)[number];

export interface PlatformDriver {
  readonly name: PlatformName;
  readonly title: string;
  detect(facts: LocalFacts): Detection;
  /** @throws PlatformError */
  read(access: PlatformAccess): Promise<PlatformFacts>;
  /**
   * Whether a service answers here as that of this platform alone does: for a machine that was moved since its firmware
   * tables were read. @throws PlatformError
   */
  recognise?(access: PlatformAccess): Promise<boolean>;
  /** What the platform is about to do with this instance. @throws PlatformError */
  events?(access: PlatformAccess): Promise<readonly PlatformEvent[]>;
  /** How often its notices need that `events` be asked for, in milliseconds; undefined: with everything else. */
  readonly eventsEveryMs?: number;
  /**
   * For a platform that says by itself when something has changed: resolves with another mark when it is not as it was
   * at `mark` any more, and now and then with the same. Null: with the mark of now. @throws PlatformError
   */
  change?(access: PlatformAccess, mark: string | null): Promise<string>;
}

/** How a driver reaches its platform: injected, so that emulators stand in for it. */
export interface PlatformAccess {
  readonly facts: LocalFacts;
  /** Folder that stands for `/`. */
  readonly root: string;
  /**
   * For a metadata service at a literal address, or at whichever of several answers first; shared by one reading, and
   * closed by who gave it. @throws PlatformError when none is one that may be asked
   */
  metadata(address: string | readonly string[], port?: number): MetadataClient;
  /** What a program of the guest tools prints; null when it is not installed or says no. @throws PlatformError */
  run(program: string, args: readonly string[], patienceMs?: number): Promise<string | null>;
}

export interface PlatformFacts {
  readonly instanceId: string | null;
  readonly zone: string | null;
  readonly region: string | null;
  /** Of the network that the local addresses belong to; equal ranges in two networks are not the same place. */
  readonly network: string | null;
  readonly locators: readonly PlatformLocator[];
  /** What the operator set for Stayput: `map-server`, `token`, `eid`, `name`. */
  readonly provisioning: Provisioning;
  /** A `boot` snapshot says how it was when the machine started, and is not true any more after a move. */
  readonly asOf: 'now' | 'boot';
  /** What the platform said and was not believed, a line each. */
  readonly refused: readonly string[];
}

export interface PlatformLocator {
  readonly address: IpAddress;
  /** `public`: from outside, mostly by a NAT that no interface knows of. */
  readonly scope: 'local' | 'public';
}

/** `maintenance`: the operator announces it, in a word, where the platform does not. */
export type ProvisioningKey = 'map-server' | 'token' | 'eid' | 'name' | 'maintenance';
export type Provisioning = Readonly<Partial<Record<ProvisioningKey, string>>>;

export interface PlatformEvent {
  /** Of the platform, to tell a new event from a known one. */
  readonly id: string;
  /** In the platform's own words: `MIGRATE_ON_HOST_MAINTENANCE`, `Freeze`, `system-reboot`. */
  readonly action: string;
  /** As the platform writes it; null: at once, or not said. */
  readonly notBefore: string | null;
}

export type PlatformFailure =
  | 'unreachable'
  | 'timeout'
  | 'refused'
  | 'redirect'
  | 'status'
  | 'too-large'
  | 'malformed'
  | 'unreadable';

/** The platform could not be asked, or what it said cannot be used. */
export class PlatformError extends StayputError {
  readonly failure: PlatformFailure;

  constructor(failure: PlatformFailure, message: string, options?: ErrorOptions) {
    super('STAYPUT_PLATFORM', message, options);
    this.failure = failure;
  }
}

/** A platform that the vendor of the firmware names. */
export function namedBy(vendor: string): (facts: LocalFacts) => Detection {
  return ({ sysVendor }) =>
    sysVendor === vendor ? certain(`the firmware names ${vendor}`) : none(`the vendor is not ${vendor}`);
}

/** `recognise` of a driver: the service has an answer to a question that only this platform has one to. */
export function recognisedBy(
  ask: (access: PlatformAccess) => Promise<unknown>,
): (access: PlatformAccess) => Promise<boolean> {
  return async (access) => (await ask(access)) !== null;
}

/** What cannot be missing in the answer of a service. @throws PlatformError */
export function present<T>(value: T | null, path: string): T {
  if (value === null) throw new PlatformError('status', `GET ${path}: there is none`);
  return value;
}

export function certain(reason: string): Detection {
  return { confidence: 'certain', reason };
}

export function likely(reason: string): Detection {
  return { confidence: 'likely', reason };
}

export function possible(reason: string): Detection {
  return { confidence: 'possible', reason };
}

export function none(reason: string): Detection {
  return { confidence: 'none', reason };
}
