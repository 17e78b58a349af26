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
  const isInForce = (): boolean => {
    const text = readResolvConf(path)?.text ?? '';
    const first = parseNameservers(text).slice(0, nameservers.length);
    return hasRecord() && first.join() === nameservers.join() && parseSearch(text).includes(zone);
  };
  if (isInForce()) return false;
  const record = [...nameservers.map((host) => `nameserver ${host}`), `search ${zone}`, ''].join('\n');
  const options = kind === 'openresolv' ? ['-m', '0', '-x'] : [];
  await resolvconf([...options, '-a', RESOLVCONF_RECORD], record, isInForce);
  return true;
}

/** True when there was one. @throws StayputError */
export async function removeRecord(kind: HostFacts['resolvconf']): Promise<boolean> {
  if (kind === null || !hasRecord()) return false;
  await resolvconf([...(kind === 'openresolv' ? ['-f'] : []), '-d', RESOLVCONF_RECORD], '', () => !hasRecord());
  return true;
}

/** It also fails when a hook of a name server does that is not running: what counts is whether it did its part. */
async function resolvconf(args: readonly string[], record: string, done: () => boolean): Promise<void> {
  try {
    await run('resolvconf', args, record);
  } catch (error) {
    if (!done()) throw error;
  }
}

function hasRecord(): boolean {
  return RESOLVCONF_RECORDS.some((folder) => existsSync(`${folder}/${RESOLVCONF_RECORD}`));
}
