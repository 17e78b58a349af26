/**
 * OpenNebula: a CD labelled CONTEXT with shell assignments, made when the machine was started. They are parsed and
 * never run. https://docs.opennebula.io/stable/management_and_operations/references/template.html#context-section
 */
import { readDiskFile } from './disk-file.ts';
import { FactsBuilder } from './facts-builder.ts';
import { deviceOfLabel, isHidden, type LocalFacts } from './local-facts.ts';
import {
  certain,
  type Detection,
  none,
  type PlatformAccess,
  type PlatformDriver,
  PlatformError,
  type PlatformFacts,
} from './platform.ts';

export const OPENNEBULA: PlatformDriver = { name: 'opennebula', title: 'OpenNebula', detect, read };

function detect({ labels }: LocalFacts): Detection {
  return labels.some((label) => label.toUpperCase() === LABEL)
    ? certain('there is a disk labelled CONTEXT')
    : none('no disk is labelled CONTEXT');
}

async function read({ root, facts: local }: PlatformAccess): Promise<PlatformFacts> {
  if (isHidden(root, local, LABEL)) return new FactsBuilder('boot').build();
  const device = deviceOfLabel(root, LABEL);
  if (device === undefined) throw new PlatformError('unreadable', 'no disk is labelled CONTEXT');
  const text = await readDiskFile(device, 'context.sh');
  if (text === null) throw new PlatformError('malformed', `${device} holds no context.sh`);
  const facts = new FactsBuilder('boot');
  for (const [key, value] of parseAssignments(text)) {
    if (key === 'VMID') facts.text('instance-id', value);
    else if (/^ETH\d{1,2}_IP6?$/.test(key)) facts.locator('local', key, value);
    else if (key === 'PUBLIC_IP' || key === 'IP_PUBLIC') facts.locator('public', key, value);
    else facts.provision(key, value);
  }
  return facts.build();
}

/**
 * `KEY='value'` or `KEY="value"`, over several lines where it has some; `'\''` is a quote in the former, and a
 * backslash takes the meaning from what follows in the latter. Anything else ends the text. @throws PlatformError
 */
export function parseAssignments(text: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  const end = text.trimEnd().length;
  const line = /\s*(?:#[^\n]*|([A-Za-z_]\w{0,127})=((?:'[^']*'|\\'|"(?:[^"\\]|\\[\s\S])*")+|[\w./:-]*)[ \t]*)(?:\n|$)/y;
  while (line.lastIndex < end) {
    const at = line.lastIndex;
    const matched = line.exec(text);
    if (matched === null) throw new PlatformError('malformed', `context.sh: not an assignment at offset ${at}`);
    const [, key, quoted] = matched;
    if (key !== undefined && found.size < MAX_ASSIGNMENTS) found.set(key, unquote(quoted ?? ''));
  }
  return found;
}

function unquote(text: string): string {
  return text.replace(/'([^']*)'|\\'|"((?:[^"\\]|\\[\s\S])*)"/g, (part, single?: string, double?: string) => {
    if (single !== undefined) return single;
    return double === undefined ? part.slice(1) : double.replace(/\\([\s\S])/g, '$1');
  });
}

const LABEL = 'CONTEXT';
const MAX_ASSIGNMENTS = 1024;
