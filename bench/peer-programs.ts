/**
 * Which programs of other systems take part: those found on the PATH, or named by `--peer`, and of these the ones in
 * `--peers`. A label after the kind (`nebula:old=/path`) lets several builds of one program take part.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { UsageError } from '../proto/errors.ts';
import { findProgram } from '../runtime/programs.ts';

/** Kind of peer → names of its program. Other builds of Stayput's data plane take part only where they are named. */
const KINDS = {
  stayput: [],
  'wireguard-go': ['wireguard-go'],
  nebula: ['nebula'],
  openvpn: ['openvpn'],
  tinc: ['tincd'],
} as const;

export type Kind = keyof typeof KINDS;

export const ALL_KINDS = Object.keys(KINDS) as Kind[];

const NAME = /^[a-z][a-z0-9.-]*(:[A-Za-z0-9._-]{1,20})?$/;

export interface PeerOptions {
  /** Comma-separated; undefined: all there are. */
  readonly peers: string | undefined;
  /** NAME=PATH, NAME:LABEL=PATH. */
  readonly peer: readonly string[];
}

export interface PeerProgram {
  readonly kind: Kind;
  /** The kind, with the label if there is one. */
  readonly name: string;
  readonly path: string;
  /** Asked for, by path or by name: a reason not to measure it is an error. */
  readonly wanted: boolean;
}

export interface Choice {
  readonly programs: readonly PeerProgram[];
  /** Of the `others`, those that are to be measured. */
  readonly others: readonly string[];
}

/**
 * @param kinds what can be measured
 * @param others what can be measured without a program
 * @throws UsageError about a name or a path
 */
export function choosePrograms(options: PeerOptions, kinds: readonly Kind[], others: readonly string[]): Choice {
  const named = options.peer.map((text) => parsePeer(text, kinds));
  const everything = [...others, ...kinds];
  const list = parseList(options.peers, [...everything, ...named.map(({ name }) => name)], everything);
  const present = [...named, ...found(kinds, named)];
  for (const name of list ?? []) {
    if (others.includes(name) || present.some((program) => [program.name, program.kind].includes(name))) continue;
    throw new UsageError(`${name} is not on the PATH: install it, or say where it is by --peer ${name}=PATH`);
  }
  const programs = present
    .filter(({ name, kind }) => list === undefined || list.has(name) || list.has(kind))
    .map((program) => ({ ...program, wanted: program.wanted || list !== undefined }));
  return { programs, others: others.filter((name) => list === undefined || list.has(name)) };
}

function parsePeer(text: string, kinds: readonly Kind[]): PeerProgram {
  const at = text.indexOf('=');
  if (at < 0) throw new UsageError(`--peer ${text}: must be NAME=PATH`);
  const [name, path] = [text.slice(0, at), text.slice(at + 1)];
  const kind = kinds.find((each) => each === name.split(':')[0]);
  if (kind === undefined || !NAME.test(name)) {
    throw new UsageError(`--peer ${text}: there is no peer ${name}; known are ${kinds.join(', ')}`);
  }
  if (kind === name && kind === 'stayput') {
    throw new UsageError(`--peer ${text}: another build of Stayput needs a label, as in stayput:old=PATH`);
  }
  if (!isExecutable(path))
    throw new UsageError(`--peer ${text}: ${path || 'the empty path'} is not an executable file`);
  return { kind, name, path, wanted: true };
}

/** undefined: no list. */
function parseList(
  text: string | undefined,
  known: readonly string[],
  everything: readonly string[],
): ReadonlySet<string> | undefined {
  if (text === undefined) return undefined;
  const names = text.split(',').map((name) => name.trim());
  if (names.length === 1 && names[0] === 'none') return new Set();
  for (const name of names) {
    if (known.includes(name)) continue;
    throw new UsageError(`--peers: there is no peer "${name}"; known are ${everything.join(', ')}, or none`);
  }
  return new Set(names);
}

/** A kind that is named explicitly is not looked for. */
function found(kinds: readonly Kind[], named: readonly PeerProgram[]): PeerProgram[] {
  return kinds
    .filter((kind) => named.every((program) => program.kind !== kind))
    .flatMap((kind) => {
      const path = KINDS[kind].map(findProgram).find((program) => program !== undefined);
      return path === undefined ? [] : [{ kind, name: kind, path, wanted: false }];
    });
}

/** Where the nebula-cert that belongs to a nebula is, or why it cannot be used. */
export function nebulaCert(path: string): { readonly cert: string } | { readonly problem: string } {
  const beside = join(dirname(path), basename(path).replace('nebula', 'nebula-cert'));
  const cert = isExecutable(beside) ? beside : findProgram('nebula-cert');
  if (cert !== undefined) return { cert };
  return { problem: `nebula needs nebula-cert beside it (${beside}) or on the PATH` };
}

export function nebulaVersion(path: string): string {
  return firstLine(path, '-version').replace(/^Version:\s*/, '');
}

export function wireguardVersion(path: string): string {
  return goModuleVersion(path, 'golang.zx2c4.com/wireguard') ?? firstLine(path, '--version');
}

export function firstLine(program: string, option: string): string {
  const { stdout, stderr } = spawnSync(program, [option], { encoding: 'utf8', timeout: 5_000 });
  return `${stdout ?? ''}${stderr ?? ''}`.split('\n', 1)[0]?.trim() || 'unknown';
}

/** From what the Go linker leaves in every binary: finer than what most programs print. */
export function goModuleVersion(path: string, module: string): string | undefined {
  const text = readFileSync(path).toString('latin1');
  const at = text.indexOf(`mod\t${module}\t`);
  return at < 0 ? undefined : /^\S+/.exec(text.slice(at + module.length + 5, at + module.length + 105))?.[0];
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
