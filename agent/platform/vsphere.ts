/**
 * VMware vSphere, ESX and vCloud: guestinfo variables by the guest tools, and the OVF environment, which is such a
 * variable or a file on a CD. It tells no public address.
 */
import { FactsBuilder } from './facts-builder.ts';
import type { LocalFacts } from './local-facts.ts';
import { readOvfDisc } from './ovf.ts';
import { addOvfEnvironment } from './ovf-environment.ts';
import {
  certain,
  type Detection,
  likely,
  none,
  type PlatformAccess,
  type PlatformDriver,
  PlatformError,
  type PlatformEvent,
  type PlatformFacts,
} from './platform.ts';

export const VSPHERE: PlatformDriver = {
  name: 'vsphere',
  title: 'VMware vSphere',
  detect,
  read,
  events,
  eventsEveryMs: 10_000,
};

function detect({ sysVendor, productName }: LocalFacts): Detection {
  if (sysVendor === 'VMware, Inc.') return certain('the firmware names VMware');
  if (productName?.startsWith('VMware') === true) return likely(`the firmware says ${productName}`);
  return none('the vendor is not VMware');
}

async function read(access: PlatformAccess): Promise<PlatformFacts> {
  const facts = new FactsBuilder('boot');
  let asked = false;
  for (const key of ['map-server', 'token', 'eid', 'name']) {
    const value = await guestinfo(access, `stayput.${key}`);
    asked ||= value !== null;
    facts.provision(`stayput.${key}`, value);
  }
  const environment = (await guestinfo(access, 'ovfEnv')) ?? (await readOvfDisc(access.root));
  if (environment !== null) addOvfEnvironment(facts, environment);
  facts.text('instance-id', access.facts.productUuid);
  if (!asked && environment === null && (await version(access)) === null) {
    throw new PlatformError('unreadable', 'neither vmware-rpctool nor vmtoolsd answers: is open-vm-tools installed?');
  }
  return facts.build();
}

/**
 * What whoever moves the machine has written down. The notification of vSphere itself (`vm-operation-notification`) is
 * not used: a machine that registered for it delays each of its moves until it has answered, also when it cannot any more.
 */
async function events(access: PlatformAccess): Promise<readonly PlatformEvent[]> {
  const action = await guestinfo(access, 'stayput.maintenance');
  return action === null ? [] : [{ id: `guestinfo ${action}`, action, notBefore: null }];
}

/** Null for one that is not set, and for one that was cleared, which reads `---`. */
async function guestinfo({ run }: PlatformAccess, key: string): Promise<string | null> {
  const command = `info-get guestinfo.${key}`;
  const text = (await run('vmware-rpctool', [command])) ?? (await run('vmtoolsd', ['--cmd', command]));
  const value = text?.trim() ?? '';
  return value === '' || value === '---' || value === 'No value found' ? null : value;
}

async function version({ run }: PlatformAccess): Promise<string | null> {
  return await run('vmtoolsd', ['--version']);
}
