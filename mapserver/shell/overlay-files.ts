/**
 * The files of a data folder that `init` makes: what the overlay is, and the keys of its authority.
 * All with secrets are 0600.
 */

import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { type IpPrefix, isIpAddress } from '../../proto/address.ts';
import { type InstanceId, instanceId, nameEid } from '../../proto/eid.ts';
import { DecodeError, UsageError } from '../../proto/errors.ts';
import { overlayProblem } from '../../proto/overlay.ts';
import type { WallClock } from '../../proto/time.ts';
import { formatHostPort } from '../../runtime/host-port.ts';
import { readJsonFile, writeJsonFile } from '../../runtime/json-file.ts';
import {
  createAuthority,
  createServerCertificate,
  fingerprint,
  type KeyAndCertificate,
  needsRenewal,
} from './certificate-authority.ts';
import { ipPrefixText } from './record-codec.ts';
import { finishExchange } from './restore-exchange.ts';

export interface OverlaySettings {
  readonly instance: InstanceId;
  readonly zone: string;
  readonly prefixes: readonly IpPrefix[];
  /** Under which agents reach this server. */
  readonly hosts: readonly string[];
  readonly port: number;
}

/** The authority before, for as long as certificates of it are about. Its key is not kept. */
export interface RetiringAuthority {
  /** PEM. */
  readonly certificate: string;
  /** PEM: the present authority, certified by this one. */
  readonly cross: string;
  readonly since: WallClock;
}

export interface OverlayFiles extends OverlaySettings {
  readonly authority: KeyAndCertificate;
  readonly retiring?: RetiringAuthority | undefined;
  readonly server: KeyAndCertificate;
  /** Base64 of 32 octets: the psk of the tunnels' handshake. */
  readonly presharedKey: string;
}

/** Makes the files, or finds that they are there with the same settings. @throws UsageError when they differ */
export function initOverlay(
  dataDir: string,
  settings: OverlaySettings,
  now: WallClock,
  adopted?: KeyAndCertificate,
): { readonly created: boolean; readonly files: OverlayFiles } {
  checkSettings(settings);
  finishExchange(dataDir);
  if (existsSync(join(dataDir, FILE))) {
    const files = openOverlay(dataDir, now);
    const different = difference(files, settings) ?? otherAuthority(files, adopted);
    if (different !== undefined) {
      throw new UsageError(
        `${dataDir} is initialised already, with ${different}; use another --data-dir, or the same values`,
      );
    }
    return { created: false, files };
  }
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new UsageError(`${dataDir}: cannot be made (${(cause as Error).message})`, { cause });
  }
  const authority = adopted ?? createAuthority(`Stayput overlay ${randomBytes(4).toString('hex')}`, now);
  const presharedKey = randomBytes(32).toString('base64');
  const server = createServerCertificate(authority, hostsOf(settings), now);
  const files: OverlayFiles = { ...settings, authority, server, presharedKey };
  // The file whose presence says that all is there is written last.
  writeJsonFile(join(dataDir, SERVER_FILE), server);
  writeOverlay(dataDir, files);
  return { created: true, files };
}

/** All but the server's certificate, which follows from it. */
export function writeOverlay(dataDir: string, { server: _server, ...files }: OverlayFiles): void {
  writeJsonFile(join(dataDir, FILE), { version: 1, ...files });
}

/**
 * Reads the files, of a restore that was cut off when it is finished; renews the server's certificate when it nears its
 * end. @throws UsageError when there are none
 */
export function openOverlay(dataDir: string, now: WallClock): OverlayFiles {
  finishExchange(dataDir);
  const settings = readOverlay(dataDir);
  return { ...settings, server: presentServer(dataDir, settings, now) };
}

/** Without a change to any file, so also for others than the map server. @throws UsageError when there are none */
export function readOverlay(dataDir: string): Omit<OverlayFiles, 'server'> {
  const path = join(dataDir, FILE);
  const stored = readJsonFile(path, STORED);
  if (stored === undefined) {
    throw new UsageError(
      `${dataDir} is not initialised; run "stayput mapserver init --data-dir ${dataDir} --host … --overlay …"`,
    );
  }
  if ((statSync(path).mode & 0o077) !== 0)
    throw new UsageError(`${path} holds keys and is open to others; chmod 600 it`);
  const { version: _version, ...settings } = stored;
  return settings;
}

/** The server's certificate on disk, or a new one when its time has come or it is of another authority. */
export function presentServer(
  dataDir: string,
  settings: OverlaySettings & Pick<OverlayFiles, 'authority'>,
  now: WallClock,
): KeyAndCertificate {
  const path = join(dataDir, SERVER_FILE);
  const hosts = hostsOf(settings);
  const stored = readJsonFile(path, KEY_AND_CERTIFICATE);
  if (stored !== undefined && !needsRenewal(stored.certificate, settings.authority, hosts, now)) return stored;
  const server = createServerCertificate(settings.authority, hosts, now);
  writeJsonFile(path, server);
  return server;
}

/** What agents are given to reach this server. */
export function overlayUrl({ hosts, port }: OverlaySettings): string {
  const host = hosts[0] ?? '127.0.0.1';
  return `https://${formatHostPort(host, port)}`;
}

export function authorityFingerprint(files: OverlayFiles): string {
  return fingerprint(files.authority.certificate);
}

function checkSettings({ prefixes, hosts, zone }: OverlaySettings): void {
  if (prefixes.length === 0) throw new UsageError('an overlay needs at least one prefix (--overlay)');
  for (const prefix of prefixes) {
    const problem = overlayProblem(prefix);
    if (problem !== undefined) throw new UsageError(`${prefix} cannot be the overlay: ${problem}`);
  }
  for (const host of hosts) {
    if (!isIpAddress(host) && !/^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?$/.test(host)) {
      throw new UsageError(`"${host}" is not a host name or address (--host takes no port; see --port)`);
    }
  }
  try {
    nameEid(0 as InstanceId, zone);
  } catch (cause) {
    if (!(cause instanceof DecodeError)) throw cause;
    throw new UsageError(`"${zone}" is not a DNS zone`, { cause });
  }
}

function difference(files: OverlaySettings, wanted: OverlaySettings): string | undefined {
  const same = (a: readonly string[], b: readonly string[]): boolean => [...a].sort().join() === [...b].sort().join();
  if (!same(files.prefixes, wanted.prefixes)) return `overlay ${files.prefixes.join(', ')}`;
  if (!same(files.hosts, wanted.hosts)) return `host ${files.hosts.join(', ')}`;
  if (files.zone !== wanted.zone) return `zone ${files.zone}`;
  if (files.instance !== wanted.instance) return `instance ${files.instance}`;
  if (files.port !== wanted.port) return `port ${files.port}`;
  return undefined;
}

function otherAuthority({ authority }: OverlayFiles, wanted: KeyAndCertificate | undefined): string | undefined {
  if (wanted === undefined || fingerprint(wanted.certificate) === fingerprint(authority.certificate)) return undefined;
  return 'another certificate authority (see "stayput mapserver ca rotate")';
}

function hostsOf({ hosts }: OverlaySettings): string[] {
  return [...new Set([...hosts, ...LOCAL_HOSTS])];
}

const KEY_AND_CERTIFICATE = z.object({ key: z.string(), certificate: z.string() });

const STORED = z.object({
  version: z.literal(1),
  instance: z.int().transform(instanceId),
  zone: z.string(),
  prefixes: z.array(ipPrefixText),
  hosts: z.array(z.string()),
  port: z.int(),
  authority: KEY_AND_CERTIFICATE,
  retiring: z.object({ certificate: z.string(), cross: z.string(), since: z.number() }).optional(),
  presharedKey: z.string(),
});

const FILE = 'overlay.json';
const SERVER_FILE = 'server-certificate.json';
const LOCAL_HOSTS = ['127.0.0.1', 'localhost', '::1'];
