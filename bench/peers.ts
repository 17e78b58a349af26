/**
 * Which other systems are measured: those found on the PATH, or named by `--peer`, and of these the ones in `--peers`.
 * A label after the kind (`nebula:old=/path`) lets several builds of one program take part.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { UsageError } from '../proto/errors.ts';
import { versionAtLeast } from '../runtime/preflight.ts';
import { findProgram } from '../runtime/programs.ts';
import { VXLAN } from './systems/kernel.ts';
import { nebula } from './systems/nebula.ts';
import { openvpn } from './systems/openvpn.ts';
import type { System } from './systems/system.ts';
import { tinc } from './systems/tinc.ts';
import { wireguard } from './systems/wireguard.ts';

/** Kind of peer → names of its program. */
const KINDS = {
  'wireguard-go': ['wireguard-go'],
  nebula: ['nebula'],
  openvpn: ['openvpn'],
  tinc: ['tincd'],
} as const;

type Kind = keyof typeof KINDS;

const EVERYTHING = ['vxlan', ...Object.keys(KINDS)];
const NAME = /^[a-z][a-z0-9.-]*(:[A-Za-z0-9._-]{1,20})?$/;
/** The first nebula that can use offloads of the TUN device and of UDP sockets. */
const NEBULA_WITH_OFFLOADS = '1.12.0';

export interface PeerOptions {
  /** Comma-separated; undefined: all there are. */
  readonly peers: string | undefined;
  /** NAME=PATH, NAME:LABEL=PATH. */
  readonly peer: readonly string[];
}

/**
 * @param note what is left out although it is there, and why
 * @throws UsageError about a name or a path
 */
export function choosePeers(options: PeerOptions, note: (line: string) => void): System[] {
  const named = options.peer.map(parsePeer);
  const wanted = parseList(options.peers, named);
  const candidates = [...named, ...found(named)];
  const chosen: System[] = wanted === undefined || wanted.has('vxlan') ? [VXLAN] : [];
  for (const candidate of candidates) {
    const label = labelOf(candidate);
    if (wanted !== undefined && !wanted.has(label) && !wanted.has(candidate.kind)) continue;
    const systems = systemsOf(candidate);
    if (typeof systems !== 'string') chosen.push(...systems);
    else if (candidate.explicit || wanted !== undefined) throw new UsageError(systems);
    else note(`${candidate.path} is left out: ${systems}`);
  }
  for (const name of wanted ?? []) {
    if (name === 'vxlan' || candidates.some((candidate) => [labelOf(candidate), candidate.kind].includes(name)))
      continue;
    throw new UsageError(`${name} is not on the PATH: install it, or say where it is by --peer ${name}=PATH`);
  }
  return chosen;
}

interface Candidate {
  readonly kind: Kind;
  readonly label: string | undefined;
  readonly path: string;
  readonly explicit: boolean;
}

function parsePeer(text: string): Candidate {
  const at = text.indexOf('=');
  if (at < 0) throw new UsageError(`--peer ${text}: must be NAME=PATH`);
  const [name, path] = [text.slice(0, at), text.slice(at + 1)];
  const [kind = '', label] = name.split(':');
  if (!isKind(kind) || !NAME.test(name)) {
    throw new UsageError(`--peer ${text}: there is no peer ${name}; known are ${Object.keys(KINDS).join(', ')}`);
  }
  if (!isExecutable(path))
    throw new UsageError(`--peer ${text}: ${path || 'the empty path'} is not an executable file`);
  return { kind, label, path, explicit: true };
}

/** undefined: no list. */
function parseList(text: string | undefined, named: readonly Candidate[]): ReadonlySet<string> | undefined {
  if (text === undefined) return undefined;
  const names = text.split(',').map((name) => name.trim());
  if (names.length === 1 && names[0] === 'none') return new Set();
  for (const name of names) {
    if (EVERYTHING.includes(name) || named.some((candidate) => labelOf(candidate) === name)) continue;
    throw new UsageError(`--peers: there is no peer "${name}"; known are ${EVERYTHING.join(', ')}, or none`);
  }
  return new Set(names);
}

/** A kind that is named explicitly is not looked for. */
function found(named: readonly Candidate[]): Candidate[] {
  return (Object.keys(KINDS) as Kind[])
    .filter((kind) => named.every((candidate) => candidate.kind !== kind))
    .flatMap((kind) => {
      const path = KINDS[kind].map(findProgram).find((program) => program !== undefined);
      return path === undefined ? [] : [{ kind, label: undefined, path, explicit: false }];
    });
}

/** A line of text says why it cannot take part. */
function systemsOf(candidate: Candidate): readonly System[] | string {
  const { kind, path } = candidate;
  const name = labelOf(candidate);
  switch (kind) {
    case 'wireguard-go': {
      return [
        wireguard(name, path, goModuleVersion(path, 'golang.zx2c4.com/wireguard') ?? firstLine(path, '--version')),
      ];
    }
    case 'nebula': {
      const beside = join(dirname(path), basename(path).replace('nebula', 'nebula-cert'));
      const cert = isExecutable(beside) ? beside : findProgram('nebula-cert');
      if (cert === undefined) return `nebula needs nebula-cert beside it (${beside}) or on the PATH`;
      const version = firstLine(path, '-version').replace(/^Version:\s*/, '');
      const programs = { nebula: path, cert };
      const plain = nebula(name, programs, version, false);
      if (!versionAtLeast(version, NEBULA_WITH_OFFLOADS)) return [plain];
      return [plain, nebula(`${name}-offloads`, programs, version, true)];
    }
    case 'openvpn': {
      const openssl = findProgram('openssl');
      if (openssl === undefined) return 'openvpn needs openssl for its certificates: apt-get install -y openssl';
      return [openvpn(name, path, openssl, /OpenVPN (\S+)/.exec(firstLine(path, '--version'))?.[1] ?? 'unknown')];
    }
    case 'tinc': {
      const version = /version (\S+)/.exec(firstLine(path, '--version'))?.[1] ?? 'unknown';
      if (!version.startsWith('1.0')) return `tinc ${version} is set up in another way; only 1.0 is supported`;
      return [tinc(name, path, version)];
    }
    default:
      return kind satisfies never;
  }
}

function labelOf({ kind, label }: Candidate): string {
  return label === undefined ? kind : `${kind}:${label}`;
}

function isKind(name: string): name is Kind {
  return Object.hasOwn(KINDS, name);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function firstLine(program: string, option: string): string {
  const { stdout, stderr } = spawnSync(program, [option], { encoding: 'utf8', timeout: 5_000 });
  return `${stdout ?? ''}${stderr ?? ''}`.split('\n', 1)[0]?.trim() || 'unknown';
}

/** From what the Go linker leaves in every binary: finer than what most programs print. */
export function goModuleVersion(path: string, module: string): string | undefined {
  const text = readFileSync(path).toString('latin1');
  const at = text.indexOf(`mod\t${module}\t`);
  return at < 0 ? undefined : /^\S+/.exec(text.slice(at + module.length + 5, at + module.length + 105))?.[0];
}
