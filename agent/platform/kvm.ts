/**
 * KVM with libvirt, oVirt, RHEV or nothing above it. It tells nothing of the network; an operator can hand values to the
 * guest as `opt/stayput/…` of QEMU's fw_cfg, or as OEM strings (SMBIOS type 11), `stayput.eid=…`. Root can read these.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { FactsBuilder } from './facts-builder.ts';
import { FW_CFG, type LocalFacts } from './local-facts.ts';
import {
  type Detection,
  likely,
  none,
  type PlatformAccess,
  type PlatformDriver,
  type PlatformFacts,
} from './platform.ts';

export const KVM: PlatformDriver = { name: 'kvm', title: 'KVM', detect, read };

export function isQemu({ sysVendor, productName, biosVendor }: LocalFacts): boolean {
  return (
    VENDORS.has(sysVendor ?? '') ||
    PRODUCTS.has(productName ?? '') ||
    (sysVendor === null && biosVendor?.startsWith('SeaBIOS') === true)
  );
}

function detect(facts: LocalFacts): Detection {
  return isQemu(facts)
    ? likely(`a QEMU machine: ${[facts.sysVendor, facts.productName].filter((text) => text !== null).join(' ')}`)
    : none('not a QEMU machine');
}

function read({ root, facts: { productUuid } }: PlatformAccess): Promise<PlatformFacts> {
  const facts = new FactsBuilder('boot').text('instance-id', productUuid);
  for (const name of entries(join(root, FW_CFG, 'stayput'))) {
    const value = bytesOf(join(root, FW_CFG, 'stayput', name, 'raw'));
    facts.provision(`stayput/${name}`, value.toString('utf8').replace(/\0+$/, '').trim());
  }
  const tables = join(root, 'sys/firmware/dmi/entries');
  for (const name of entries(tables).filter((each) => each.startsWith('11-'))) {
    for (const text of oemStrings(bytesOf(join(tables, name, 'raw')))) {
      facts.provisionTag(text);
    }
  }
  return Promise.resolve(facts.build());
}

/** After a formatted part, whose length is the octet at 1, strings that end with a zero each. */
function oemStrings(table: Buffer): string[] {
  return table
    .subarray(table[1] ?? table.length)
    .toString('utf8')
    .split('\0')
    .slice(0, MAX_ENTRIES);
}

function entries(folder: string): string[] {
  try {
    return readdirSync(folder).slice(0, MAX_ENTRIES);
  } catch {
    return [];
  }
}

function bytesOf(path: string): Buffer {
  try {
    return readFileSync(path).subarray(0, MAX_OCTETS);
  } catch {
    return Buffer.alloc(0);
  }
}

const VENDORS = new Set(['QEMU', 'Red Hat', 'oVirt']);
const PRODUCTS = new Set(['KVM', 'RHEV Hypervisor', 'oVirt Node', 'RHEL', 'Bochs']);
const MAX_ENTRIES = 256;
const MAX_OCTETS = 64 * 1024;
