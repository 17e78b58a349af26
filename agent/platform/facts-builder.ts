/** The one gate for what a platform says: everything is a bounded, plain value behind it, or refused and named. */
import { isIpAddress, parseIpAddress } from '../../proto/address.ts';
import { isPlausibleLocator } from '../../proto/overlay.ts';
import type { PlatformFacts, PlatformLocator, ProvisioningKey } from './platform.ts';

export class FactsBuilder {
  private readonly asOf: PlatformFacts['asOf'];
  private readonly texts = new Map<TextField, string>();
  private readonly locators: PlatformLocator[] = [];
  private readonly provisioning = new Map<ProvisioningKey, string>();
  private readonly refused: string[] = [];

  constructor(asOf: PlatformFacts['asOf'] = 'now') {
    this.asOf = asOf;
  }

  /** The first value stays. Absent and empty are the same: services answer 200 with nothing. */
  text(field: TextField, value: string | null | undefined): this {
    if (value === null || value === undefined || value === '' || this.texts.has(field)) return this;
    if (PLAIN.test(value)) this.texts.set(field, value);
    else this.refuse(field, 'not a plain word');
    return this;
  }

  /** One address, or several separated by space; `field` is the platform's word for it. */
  locator(scope: PlatformLocator['scope'], field: string, value: string | null | undefined): this {
    for (const word of (value ?? '').slice(0, MAX_LIST).split(/\s+/)) {
      if (word === '') continue;
      if (!isIpAddress(word)) {
        this.refuse(field, 'not an address');
        continue;
      }
      const address = parseIpAddress(word);
      if (!isPlausibleLocator(address, [])) this.refuse(field, `${address} cannot be a locator`);
      else if (this.locators.length >= MAX_LOCATORS) this.refuse(field, `more than ${MAX_LOCATORS} addresses`);
      else if (!this.locators.some((known) => known.address === address)) this.locators.push({ address, scope });
    }
    return this;
  }

  /** What is not for Stayput is passed over: `stayput.eid`, `stayput-eid`, `STAYPUT_EID`, `stayput/eid` are. */
  provision(name: string, value: string | null | undefined): this {
    const [, word] = /^stayput[._/-](.{1,32})$/i.exec(name) ?? [];
    const key = KEYS.find((known) => known === word?.toLowerCase().replace(/[._/]/g, '-'));
    if (key === undefined || value === null || value === undefined || value === '') return this;
    if (PLAIN.test(value)) this.provisioning.set(key, value);
    else this.refuse(name.slice(0, 64), 'not a plain word');
    return this;
  }

  /** A tag that holds both: `stayput-eid=10.77.0.5/32`. */
  provisionTag(tag: string): this {
    const at = tag.indexOf('=');
    return at > 0 ? this.provision(tag.slice(0, at), tag.slice(at + 1).trim()) : this;
  }

  build(): PlatformFacts {
    return {
      instanceId: this.texts.get('instance-id') ?? null,
      zone: this.texts.get('zone') ?? null,
      region: this.texts.get('region') ?? null,
      network: this.texts.get('network') ?? null,
      locators: this.locators,
      provisioning: Object.fromEntries(this.provisioning),
      asOf: this.asOf,
      refused: this.refused,
    };
  }

  private refuse(field: string, problem: string): void {
    if (this.refused.length < MAX_REFUSED) this.refused.push(`${field}: ${problem}`);
  }
}

export type TextField = 'instance-id' | 'zone' | 'region' | 'network';

const KEYS: readonly ProvisioningKey[] = ['map-server', 'token', 'eid', 'name', 'maintenance'];
/** Identifiers, host names, URLs, tokens: nothing that a terminal, a log or a shell would take for more. */
const PLAIN = /^[\w./:@+=,[\]-]{1,512}$/;
const MAX_LOCATORS = 32;
const MAX_LIST = 4096;
const MAX_REFUSED = 16;
