/**
 * The resolvers of the place where this host is. resolv.conf names them, or it names a resolver on the host itself;
 * then whoever put that there keeps the place's own somewhere else, world-readable, and they are read from there:
 *
 * - ours: the file that was there before lies beside it;
 * - systemd-resolved's stub (127.0.0.53): all servers of all links are in /run/systemd/resolve/resolv.conf;
 * - NetworkManager with its dnsmasq: /run/NetworkManager/no-stub-resolv.conf;
 * - resolvconf with a local name server: one record per interface.
 *
 * A local resolver of which none of this is known is itself the place's resolver.
 */
import { formerPath, isOwnResolvConf, parseNameservers } from './dns-resolv-conf.ts';

export interface PlaceReader {
  /** Undefined when there is no such file. */
  text(path: string): string | undefined;
  /** Names of the files in a folder; none when there is no such folder. */
  names(folder: string): readonly string[];
}

export interface Place {
  /** Literal addresses, without repetitions. */
  readonly resolvers: readonly string[];
  /** What was read or looked for: a change of one of these may be another place. */
  readonly paths: readonly string[];
}

/** From the resolv.conf at `path`, which may be ours or missing. */
export function placeOf(path: string, reader: PlaceReader): Place {
  const text = reader.text(path) ?? '';
  if (isOwnResolvConf(text)) {
    const former = placeOf(formerPath(path), reader);
    return { resolvers: former.resolvers, paths: [path, ...former.paths] };
  }
  const named = parseNameservers(text);
  const kept = keptElsewhere(text, named, reader);
  return {
    resolvers: kept.resolvers.length > 0 || kept.instead ? kept.resolvers : named,
    paths: [path, ...kept.paths],
  };
}

/** All ask systemd-resolved's stub. */
export function isResolvedStub(nameservers: readonly string[]): boolean {
  return nameservers.length > 0 && nameservers.every((host) => host === '127.0.0.53' || host === '127.0.0.54');
}

/** Of the record that is ours among those of resolvconf; `lo.` is what it expects of a name server on the host. */
export const RESOLVCONF_RECORD = 'lo.stayput';
const RESOLVED_SERVERS = '/run/systemd/resolve/resolv.conf';
/** Debian's, openresolv's. */
export const RESOLVCONF_RECORDS = ['/run/resolvconf/interface', '/run/resolvconf/interfaces'] as const;

/** `instead`: what resolv.conf names is the agent itself, so nobody is left when nothing is kept. */
function keptElsewhere(text: string, named: readonly string[], reader: PlaceReader): Place & { instead: boolean } {
  if (named.length === 0 || !named.every(isLoopback)) return NOWHERE_ELSE;
  if (isResolvedStub(named)) return { ...serversIn([RESOLVED_SERVERS], reader), instead: false };
  if (/^#.*NetworkManager/m.test(text)) return { ...serversIn([NETWORKMANAGER_SERVERS], reader), instead: false };
  if (/^#.*\bresolvconf\b/m.test(text)) {
    const records = RESOLVCONF_RECORDS.flatMap((folder) => reader.names(folder).map((name) => `${folder}/${name}`));
    const others = records.filter((record) => !record.includes(RESOLVCONF_RECORD));
    const { resolvers, paths } = serversIn(others, reader);
    return {
      resolvers,
      paths: [...RESOLVCONF_RECORDS.map((folder) => `${folder}/*`), ...paths],
      instead: others.length < records.length,
    };
  }
  return NOWHERE_ELSE;
}

function serversIn(paths: readonly string[], reader: PlaceReader): Place {
  const found = paths.flatMap((path) => parseNameservers(reader.text(path) ?? ''));
  return { resolvers: [...new Set(found)].slice(0, MAX_RESOLVERS), paths };
}

function isLoopback(host: string): boolean {
  return host === '::1' || host.startsWith('127.');
}

const NOWHERE_ELSE = { resolvers: [], paths: [], instead: false };
const NETWORKMANAGER_SERVERS = '/run/NetworkManager/no-stub-resolv.conf';
const MAX_RESOLVERS = 8;
