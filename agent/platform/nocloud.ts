/**
 * NoCloud: a CD that somebody made for cloud-init, as of the boot. `meta-data` is YAML, of which plain lines `key: value`
 * at the outermost level are understood. https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
 */
import { readDiskFile } from './disk-file.ts';
import { FactsBuilder } from './facts-builder.ts';
import { deviceOfLabel, isHidden, type LocalFacts } from './local-facts.ts';
import {
  type Detection,
  likely,
  none,
  type PlatformAccess,
  type PlatformDriver,
  PlatformError,
  type PlatformFacts,
} from './platform.ts';

export const NOCLOUD: PlatformDriver = { name: 'nocloud', title: 'NoCloud seed', detect, read };

function detect({ labels, productSerial }: LocalFacts): Detection {
  if (labels.some((label) => label.toLowerCase() === LABEL)) return likely('there is a disk labelled cidata');
  if (productSerial?.includes('ds=nocloud') === true) return likely('the serial number says ds=nocloud');
  return none('no disk is labelled cidata');
}

async function read({ root, facts: local }: PlatformAccess): Promise<PlatformFacts> {
  if (isHidden(root, local, LABEL)) return new FactsBuilder('boot').build();
  const device = deviceOfLabel(root, LABEL);
  if (device === undefined) throw new PlatformError('unreadable', 'no disk is labelled cidata');
  const text = await readDiskFile(device, 'meta-data');
  if (text === null) throw new PlatformError('malformed', `${device} holds no meta-data`);
  const facts = new FactsBuilder('boot');
  for (const line of text.split('\n').slice(0, MAX_LINES)) {
    const [, key, quoted] = /^["']?([\w./-]{1,64})["']?:\s+(\S.{0,599})$/.exec(line.trimEnd()) ?? [];
    if (key === undefined || quoted === undefined) continue;
    const value = quoted.replace(/^(["'])(.*)\1$/, '$2');
    if (key === 'instance-id') facts.text('instance-id', value);
    else facts.provision(key, value);
  }
  return facts.build();
}

const LABEL = 'cidata';
const MAX_LINES = 1024;
