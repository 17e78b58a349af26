/**
 * What `stayput bugreport` puts together: what daemons say of themselves, their configuration and logs, and the network
 * of the host. Each part is asked for by itself, within a time and a size, so that a host that is half broken gives the
 * other half. Nothing leaves this file that did not go through `Redaction`.
 */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { arch, hostname, release } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { callApi } from '../runtime/http-api.ts';
import { findProgram } from '../runtime/programs.ts';
import { VERSION } from '../runtime/project-root.ts';
import { Redaction } from '../runtime/redaction.ts';
import { packTar } from '../runtime/tar.ts';

export interface ReportSources {
  readonly agentConfig: string;
  readonly mapServerConfig: string;
  readonly agentSocket: string;
  readonly stateDir: string;
  readonly dataDir: string;
  /** HOST:PORT of metrics, those that there are. */
  readonly metrics: readonly string[];
  /** More parts: by name, what gives them. */
  readonly more: Readonly<Record<string, () => Promise<unknown>>>;
}

export interface ReportPart {
  readonly name: string;
  readonly octets: number;
  /** Why it is not there, or not whole; null when it is. */
  readonly problem: string | null;
}

export interface Report {
  readonly archive: Buffer;
  readonly parts: readonly ReportPart[];
  /** How often something was taken out. */
  readonly redacted: number;
}

export async function makeReport(sources: ReportSources, now: number): Promise<Report> {
  const redaction = new Redaction(knownSecrets(sources));
  const made = await Promise.all(
    Object.entries(partsOf(sources)).map(async ([name, make]) => ({ name, ...(await within(make)) })),
  );
  const files = made.map(({ name, value, problem }) => {
    const clean = typeof value === 'string' ? redaction.text(value) : JSON.stringify(redaction.value(value), null, 2);
    const octets = Buffer.from(value === null ? '' : clean);
    const cut = octets.length > LARGEST;
    // Of a log the end says most.
    const content = cut ? octets.subarray(-LARGEST) : octets;
    const why = problem === null ? null : redaction.text(problem);
    return { name, content, problem: cut ? `cut to its last ${LARGEST} octets` : why };
  });
  const parts = files.map(({ name, content, problem }) => ({ name, octets: content.length, problem }));
  const index = { version: VERSION, madeAt: new Date(now).toISOString(), redacted: redaction.times, parts };
  const present = files.filter(({ content }) => content.length > 0);
  const archive = gzipSync(
    packTar(
      [{ name: 'index.json', content: Buffer.from(JSON.stringify(index, null, 2)) }, ...present].map((file) => ({
        ...file,
        name: `stayput-bugreport/${file.name}`,
      })),
      now,
    ),
  );
  return { archive, parts, redacted: redaction.times };
}

type Make = () => Promise<unknown> | unknown;

function partsOf(sources: ReportSources): Readonly<Record<string, Make>> {
  const agent = (path: string) => () =>
    callApi({ socketPath: sources.agentSocket }, 'GET', path, { timeoutMs: TIMEOUT });
  const server = (path: string) => () =>
    callApi({ socketPath: join(sources.dataDir, 'admin.sock') }, 'GET', path, { timeoutMs: TIMEOUT });
  return {
    'versions.json': versions,
    'agent-status.json': agent('/v1/status'),
    'agent-peers.json': agent('/v1/peers'),
    'agent-dns.json': agent('/v1/dns'),
    'agent-config.json': () => configOf(sources.agentConfig),
    'agent-state.txt': () => listing(sources.stateDir),
    'mapserver-status.json': server('/v1/status'),
    'mapserver-config.json': () => configOf(sources.mapServerConfig),
    'mapserver-state.txt': () => listing(sources.dataDir),
    'mapserver-audit.txt': () => lastLines(join(sources.dataDir, 'audit.log')),
    ...Object.fromEntries(sources.metrics.map((at) => [`metrics-${at.replace(/\W+/g, '-')}.txt`, () => metricsOf(at)])),
    ...Object.fromEntries(
      UNITS.map((unit) => [
        `log-${unit}.txt`,
        () => run('journalctl', ['-u', unit, '-n', '2000', '-o', 'cat', '--no-pager']),
      ]),
    ),
    ...Object.fromEntries(
      Object.entries(NETWORK).map(([name, [program, ...args]]) => [`network-${name}.txt`, () => run(program, args)]),
    ),
    'kernel.txt': kernelSettings,
    ...sources.more,
  };
}

/** Values of the files that hold them, so that they are found wherever else they are. */
function* knownSecrets({ stateDir, dataDir, agentConfig, mapServerConfig }: ReportSources): Iterable<string> {
  for (const name of ['identity.json', 'joining.json']) yield* secretStrings(join(stateDir, name));
  for (const name of ['overlay.json', 'server-certificate.json']) yield* secretStrings(join(dataDir, name));
  for (const config of [agentConfig, mapServerConfig]) {
    yield* secretStrings(config);
    for (const path of namedFiles(config)) {
      const text = readOrNull(path);
      if (text === null || text.length > 4096) continue;
      yield text;
      for (const [, quoted = ''] of text.matchAll(/"([^"]*)"/g)) yield quoted;
      yield* text.split('\n');
    }
  }
}

/** Of a file of the daemons, all strings but those that are public. */
function* secretStrings(path: string): Iterable<string> {
  const text = readOrNull(path);
  if (text === null) return;
  try {
    yield* stringsOf(JSON.parse(text));
  } catch {
    // What is cut off cannot be quoted by anybody either.
  }
}

function* stringsOf(value: unknown, field = ''): Iterable<string> {
  if (typeof value === 'string') {
    if (/key$|psk|secret|passw|passphrase|token$/i.test(field) && field !== 'tunnelKey') yield value;
    // A key as PEM is found line by line too.
    if (/PRIVATE KEY/.test(value))
      yield* value.split('\n').filter((line) => line.length >= 24 && !line.startsWith('-----'));
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, inner] of Object.entries(value)) yield* stringsOf(inner, key);
  }
}

/** Files that a configuration names as those of keys. */
function namedFiles(config: string): string[] {
  const text = readOrNull(config);
  return [...(text ?? '').matchAll(/"(\w*(?:key|token|secret|password)Files?)"\s*:\s*(\[[^\]]*\]|"[^"]*")/gi)].flatMap(
    ([, , value]) => [...(value ?? '').matchAll(/"([^"]+)"/g)].map(([, path]) => path ?? ''),
  );
}

function configOf(path: string): unknown {
  const text = readFileSync(path, 'utf8');
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function versions(): unknown {
  return {
    stayput: VERSION,
    node: process.version,
    kernel: release(),
    arch: arch(),
    host: hostname(),
    system: readOrNull('/etc/os-release'),
    uptimeSeconds: Math.round(Number((readOrNull('/proc/uptime') ?? '0').split(' ')[0])),
  };
}

/** Names, sizes and rights, no contents. */
function listing(folder: string): string {
  return readdirSync(folder)
    .map((name) => {
      const { mode, size, uid, gid, mtime } = statSync(join(folder, name));
      return `${(mode & 0o7777).toString(8).padStart(4, '0')} ${uid}:${gid} ${String(size).padStart(10)} ${mtime.toISOString()} ${name}`;
    })
    .join('\n');
}

function lastLines(path: string): string {
  return readFileSync(path, 'utf8').split('\n').slice(-500).join('\n');
}

function kernelSettings(): string {
  return SETTINGS.map((path) => `${path} = ${(readOrNull(path) ?? '(not there)').trim()}`).join('\n');
}

async function metricsOf(at: string): Promise<string> {
  const response = await fetch(`http://${at}/metrics`, { signal: AbortSignal.timeout(TIMEOUT) });
  const parts: Uint8Array[] = [];
  let octets = 0;
  // Whoever listens there may never end.
  for await (const part of response.body ?? []) {
    parts.push(part);
    octets += part.length;
    if (octets > 4 * LARGEST) throw new Error(`more than ${4 * LARGEST} octets`);
  }
  return Buffer.concat(parts).toString('utf8');
}

function run(program: string, args: readonly string[]): Promise<string> {
  const path = findProgram(program);
  if (path === undefined) return Promise.reject(new Error(`${program} is not installed`));
  return new Promise((resolve, reject) => {
    execFile(path, args, { timeout: TIMEOUT, maxBuffer: 4 * LARGEST }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(stderr.trim().split('\n', 1)[0] || error.message));
    });
  });
}

async function within(make: Make): Promise<{ readonly value: unknown; readonly problem: string | null }> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error('it took too long')), 4 * TIMEOUT);
  });
  try {
    return { value: (await Promise.race([make(), late])) ?? null, problem: null };
  } catch (error) {
    return { value: null, problem: (error as Error).message.split('\n', 1)[0] ?? '' };
  } finally {
    clearTimeout(timer);
  }
}

function readOrNull(path: string): string | null {
  try {
    return existsSync(path) ? readFileSync(path, 'utf8') : null;
  } catch {
    return null;
  }
}

const UNITS = ['stayput-agent', 'stayput-dataplane', 'stayput-mapserver', 'stayput-dns-host', 'stayput-sleep'];
const NETWORK: Readonly<Record<string, readonly [string, ...string[]]>> = {
  addresses: ['ip', '-d', 'address'],
  routes: ['ip', 'route', 'show', 'table', 'all'],
  routes6: ['ip', '-6', 'route', 'show', 'table', 'all'],
  rules: ['ip', 'rule'],
  rules6: ['ip', '-6', 'rule'],
  listeners: ['ss', '-lntu'],
  nftables: ['nft', 'list', 'ruleset'],
};
const SETTINGS = [
  '/proc/sys/net/ipv4/ip_forward',
  '/proc/sys/net/ipv4/conf/all/rp_filter',
  '/proc/sys/net/ipv6/conf/all/forwarding',
  '/proc/sys/net/ipv6/conf/all/disable_ipv6',
  '/proc/sys/net/core/rmem_max',
  '/proc/sys/net/core/wmem_max',
  '/sys/kernel/security/lsm',
  '/etc/resolv.conf',
  '/etc/nsswitch.conf',
];
/** Milliseconds, for one question. */
const TIMEOUT = 10_000;
/** Octets of one part. */
const LARGEST = 1024 * 1024;
