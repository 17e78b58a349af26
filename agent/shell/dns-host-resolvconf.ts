/**
 * resolvconf(8) is given a record with the agent as a name server on the host itself, which it puts before all others.
 * Debian's then leaves the others out; openresolv is told to (`-x`). What the interfaces brought stays in the other
 * records, and is the agent's upstream from there.
 */
import { existsSync } from 'node:fs';
import type { HostFacts } from '../core/dns-host-owner.ts';
import { RESOLVCONF_RECORD, RESOLVCONF_RECORDS } from '../core/dns-place.ts';
import { parseNameservers, parseSearch } from '../core/dns-resolv-conf.ts';
import { readResolvConf } from './dns-host-facts.ts';
import { run } from './dns-host-program.ts';

/** True when the record had to be made. @throws StayputError */
export async function addRecord(
  path: string,
  kind: HostFacts['resolvconf'],
  nameservers: readonly string[],
  zone: string,
): Promise<boolean> {
  const text = readResolvConf(path)?.text ?? '';
  const first = parseNameservers(text).slice(0, nameservers.length);
  if (hasRecord() && first.join() === nameservers.join() && parseSearch(text).includes(zone)) return false;
  const record = [...nameservers.map((host) => `nameserver ${host}`), `search ${zone}`, ''].join('\n');
  const options = kind === 'openresolv' ? ['-m', '0', '-x'] : [];
  await run('resolvconf', [...options, '-a', RESOLVCONF_RECORD], record);
  return true;
}

/** True when there was one. @throws StayputError */
export async function removeRecord(kind: HostFacts['resolvconf']): Promise<boolean> {
  if (kind === null || !hasRecord()) return false;
  await run('resolvconf', [...(kind === 'openresolv' ? ['-f'] : []), '-d', RESOLVCONF_RECORD]);
  return true;
}

function hasRecord(): boolean {
  return RESOLVCONF_RECORDS.some((folder) => existsSync(`${folder}/${RESOLVCONF_RECORD}`));
}
