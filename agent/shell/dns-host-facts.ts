/** What is on this host that tells who decides about names. */
import { existsSync, lstatSync, readFileSync, readlinkSync } from 'node:fs';
import { findProgram } from '../../runtime/programs.ts';
import type { HostFacts, ResolvConf } from '../core/dns-host-owner.ts';
import { formerPath } from '../core/dns-resolv-conf.ts';

export const RESOLV_CONF = '/etc/resolv.conf';
export const RESOLVED_FOLDER = '/run/systemd/resolve';

export function readHostFacts(resolvConf = RESOLV_CONF): HostFacts {
  return {
    resolvConf: readResolvConf(resolvConf),
    former: readResolvConf(formerPath(resolvConf)),
    nsswitch: textOf('/etc/nsswitch.conf'),
    // Its socket; the folder alone is kept when it stops.
    resolvedRuns: existsSync(`${RESOLVED_FOLDER}/io.systemd.Resolve`),
    resolvectl: findProgram('resolvectl') !== undefined,
    resolvconf: resolvconfKind(),
  };
}

/** A link that leads nowhere is an empty file. Null when there is neither. */
export function readResolvConf(path: string): ResolvConf | null {
  try {
    const link = lstatSync(path).isSymbolicLink() ? readlinkSync(path) : null;
    return { text: textOf(path) ?? '', link };
  } catch {
    return null;
  }
}

/** systemd puts a link to resolvectl under this name, which keeps no records. */
function resolvconfKind(): HostFacts['resolvconf'] {
  const program = findProgram('resolvconf');
  const text = program === undefined ? null : textOf(program);
  if (text === null || !text.startsWith('#!')) return null;
  return text.includes('openresolv') || text.includes('Roy Marples') ? 'openresolv' : 'debian';
}

function textOf(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}
