/**
 * Xen, XenServer and XCP-ng: the xenstore, by the tools of the guest. What is below `vm-data` was set when the machine
 * was started. Xen tells no public address; Rackspace wrote the interfaces of a machine to `vm-data/networking`.
 */
import { z } from 'zod';
import { FactsBuilder } from './facts-builder.ts';
import type { LocalFacts } from './local-facts.ts';
import { parseJson } from './metadata-client.ts';
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

export const XEN: PlatformDriver = { name: 'xen', title: 'Xen', detect, read, events, change };

function detect({ hypervisorType, xenbus, productName }: LocalFacts): Detection {
  if (hypervisorType === 'xen') return certain('the kernel runs on Xen');
  if (xenbus) return likely('there is a device xenbus');
  if (productName === 'HVM domU') return likely('the firmware says HVM domU');
  return none('neither the hypervisor, a xenbus nor the firmware is that of Xen');
}

async function read({ run }: PlatformAccess): Promise<PlatformFacts> {
  const vm = await run('xenstore-read', ['vm']);
  if (vm === null) {
    throw new PlatformError('unreadable', 'xenstore-read is not installed, or may not open the xenbus (root may)');
  }
  const facts = new FactsBuilder('boot').text('instance-id', vm.trim().replace(/^\/vm\//, ''));
  for (const key of await list(run, 'vm-data/stayput')) {
    facts.provision(`stayput/${key}`, (await run('xenstore-read', [`vm-data/stayput/${key}`]))?.trim());
  }
  for (const mac of await list(run, 'vm-data/networking')) {
    const text = await run('xenstore-read', [`vm-data/networking/${mac}`]);
    if (text === null) continue;
    const { label, ips, ip6s } = parseJson(INTERFACE, text, `vm-data/networking/${mac}`);
    const scope = label === 'public' ? 'public' : 'local';
    for (const { ip, enabled } of [...(ips ?? []), ...(ip6s ?? [])]) {
      if (String(enabled ?? '1') !== '0') facts.locator(scope, 'networking', ip);
    }
  }
  return facts.build();
}

/** What the toolstack asks of this domain (`suspend` also to migrate it), and what an operator has written down. */
async function events({ run }: PlatformAccess): Promise<readonly PlatformEvent[]> {
  const said: PlatformEvent[] = [];
  for (const path of NOTICES) {
    const action = (await run('xenstore-read', [path]))?.trim() ?? '';
    if (action !== '') said.push({ id: `${path} ${action}`, action, notBefore: null });
  }
  return said;
}

/** A watch speaks once when it begins, and again when something has changed. */
async function change({ run }: PlatformAccess, mark: string | null): Promise<string> {
  if (mark === null) return '0';
  try {
    const seen = await run('xenstore-watch', ['-n', String(NOTICES.length + 1), ...NOTICES], WAIT_MS);
    if (seen === null)
      throw new PlatformError('unreadable', 'xenstore-watch is not installed, or may not open the xenbus');
    return String((Number(mark) + 1) % 1000);
  } catch (error) {
    if (error instanceof PlatformError && error.failure === 'timeout') return mark;
    throw error;
  }
}

async function list(run: PlatformAccess['run'], folder: string): Promise<string[]> {
  const names = (await run('xenstore-list', [folder])) ?? '';
  return names
    .split('\n')
    .filter((name) => /^[\w-]{1,64}$/.test(name))
    .slice(0, MAX_KEYS);
}

const NOTICES = ['control/shutdown', 'vm-data/stayput/maintenance'];
const WAIT_MS = 50_000;
const MAX_KEYS = 16;
const word = z.string().max(256).nullish();
const IPS = z
  .array(z.object({ ip: word, enabled: z.union([z.string().max(8), z.number(), z.boolean()]).nullish() }))
  .max(32)
  .nullish();
const INTERFACE = z.object({ label: word, ips: IPS, ip6s: IPS });
