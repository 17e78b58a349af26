/** Any platform that hands the OVF environment over on a CD: VirtualBox, oVirt, vCloud and vSphere where so asked. */
import { readDiskFile } from './disk-file.ts';
import { FactsBuilder } from './facts-builder.ts';
import { deviceOfLabel, isHidden, type LocalFacts } from './local-facts.ts';
import { addOvfEnvironment } from './ovf-environment.ts';
import {
  type Detection,
  likely,
  none,
  type PlatformAccess,
  type PlatformDriver,
  PlatformError,
  type PlatformFacts,
} from './platform.ts';

export const OVF: PlatformDriver = { name: 'ovf', title: 'OVF environment', detect, read };

function detect({ labels }: LocalFacts): Detection {
  const found = labels.find((label) => LABELS.some((known) => known.toLowerCase() === label.toLowerCase()));
  return found === undefined
    ? none('no disk has a label of the OVF environment')
    : likely(`there is a disk labelled ${found}`);
}

async function read({ root, facts: local }: PlatformAccess): Promise<PlatformFacts> {
  if (LABELS.some((label) => isHidden(root, local, label))) return new FactsBuilder('boot').build();
  const text = await readOvfDisc(root);
  if (text === null) throw new PlatformError('unreadable', 'no disk holds an OVF environment');
  const facts = new FactsBuilder('boot');
  addOvfEnvironment(facts, text);
  return facts.build();
}

/** Null when there is no such disk, or no environment on it. @throws PlatformError */
export async function readOvfDisc(root: string): Promise<string | null> {
  for (const label of LABELS) {
    const device = deviceOfLabel(root, label);
    if (device === undefined) continue;
    return (await readDiskFile(device, 'ovf-env.xml')) ?? (await readDiskFile(device, 'ovf_env.xml'));
  }
  return null;
}

const LABELS = ['OVF-TRANSPORT', 'OVFENV', 'OVF ENV'];
