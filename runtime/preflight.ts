/**
 * What the machine must have before the demo or the tests can run. The one list of it: every answer is a line that
 * says what is missing and what to type. Runs before anything is built, so it needs nothing but Node.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { createRequire, isBuiltin } from 'node:module';
import { join } from 'node:path';
import { dataplaneBinary } from './crate-build.ts';
import { findProgram } from './programs.ts';
import { PROJECT_ROOT } from './project-root.ts';

export function missingForDemo(): string[] {
  return [
    ...missingNode(),
    ...missingStore(),
    ...missingPrograms(DEMO_PROGRAMS),
    ...missingToolchain('binary'),
    ...missingNamespaces(),
  ];
}

export function missingForTests(): string[] {
  return [
    ...missingNode(),
    ...missingStore(),
    ...missingPrograms(TEST_PROGRAMS),
    ...missingToolchain('crate'),
    ...missingRoot(),
  ];
}

/** For what runs without namespaces: building, checking, unit tests. */
export function missingForBuild(): string[] {
  return [...missingNode(), ...missingStore(), ...missingToolchain('crate')];
}

/** Besides building: formatting and lints. */
export function missingForCheck(): string[] {
  const missing = ['rustfmt', 'cargo-clippy'].filter((name) => findProgram(name) === undefined);
  const rust = missing.length === 0 ? [] : [`${missing.join(', ')} not found: rustup component add rustfmt clippy`];
  return [...missingForBuild(), ...rust];
}

/** The Debian packages that hold everything the tests start. */
export function debianPackages(): string[] {
  return [...new Set([...Object.values(TEST_PROGRAMS), 'build-essential'])].sort();
}

/** Numeric comparison of dotted versions; missing parts are 0, anything after `-` or `+` is left out. */
export function versionAtLeast(version: string, wanted: string): boolean {
  const parts = (text: string): number[] =>
    (text.split(/[-+]/, 1)[0] ?? '').split('.').map((part) => Number(part) || 0);
  const have = parts(version);
  for (const [i, part] of parts(wanted).entries()) {
    const difference = (have[i] ?? 0) - part;
    if (difference !== 0) return difference > 0;
  }
  return true;
}

/** The `rust-version` of the data plane's Cargo.toml. */
export function wantedRust(cargoToml: string): string {
  return /^rust-version\s*=\s*"([\d.]+)"/m.exec(cargoToml)?.[1] ?? '1.0';
}

function missingNode(): string[] {
  const { engines } = JSON.parse(readFileSync(join(PROJECT_ROOT, 'package.json'), 'utf8')) as {
    engines: { node: string };
  };
  const wanted = engines.node.replace(/[^\d.]/g, '');
  if (versionAtLeast(process.versions.node, wanted)) return [];
  return [`Node ${process.versions.node} is too old: install Node ${wanted} or newer (https://nodejs.org/download)`];
}

/** The map server's store: a part of newer Nodes, an optional package, compiled when it is installed, on older ones. */
function missingStore(): string[] {
  if (isBuiltin('node:sqlite')) return [];
  try {
    const Database = createRequire(import.meta.url)('better-sqlite3') as new (path: string) => { close(): void };
    new Database(':memory:').close();
    return [];
  } catch {
    return ['better-sqlite3 is not compiled: apt-get install -y build-essential python3 && npm rebuild better-sqlite3'];
  }
}

function missingPrograms(programs: Readonly<Record<string, string>>): string[] {
  const missing = Object.entries(programs).filter(([name]) => findProgram(name) === undefined);
  if (missing.length === 0) return [];
  const packages = [...new Set(missing.map(([, debian]) => debian))].join(' ');
  return [`${missing.map(([name]) => name).join(', ')} not found: apt-get install -y ${packages}`];
}

/** `binary`: nothing is needed once the data plane is built. `crate`: its tests and lints are going to be compiled. */
function missingToolchain(purpose: 'binary' | 'crate'): string[] {
  if (purpose === 'binary' && dataplaneBinary() !== undefined) return [];
  const lines: string[] = [];
  const manifest = join(PROJECT_ROOT, 'dataplane', 'Cargo.toml');
  const wanted = existsSync(manifest) ? wantedRust(readFileSync(manifest, 'utf8')) : '1.0';
  const cargo = findProgram('cargo');
  const rustc = findProgram('rustc');
  if (cargo === undefined || rustc === undefined) {
    lines.push(`Rust ${wanted} or newer not found: ${RUSTUP}`);
  } else {
    const version = /rustc ([\d.]+)/.exec(output(rustc, ['--version']))?.[1] ?? '0';
    if (!versionAtLeast(version, wanted)) {
      const update = findProgram('rustup') === undefined ? RUSTUP : 'rustup update stable';
      lines.push(`Rust ${version} is too old, ${wanted} or newer is needed: ${update}`);
    }
  }
  if (findProgram('cc') === undefined) lines.push('no C compiler (cc): apt-get install -y build-essential');
  return lines;
}

function missingNamespaces(): string[] {
  return [...missingTun(), ...missingUnshare()];
}

/** sshd and packet capture, which the tests use besides namespaces, need more than a user namespace gives. */
function missingRoot(): string[] {
  if (process.getuid?.() === 0) return missingNamespaces();
  return ['the end-to-end tests start sshd and capture packets, for which they must be root: sudo npm test'];
}

function missingTun(): string[] {
  const path = '/dev/net/tun';
  try {
    closeSync(openSync(path, 'r+'));
    return [];
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    switch (code) {
      case 'ENOENT':
        return [`${path} is missing: mkdir -p /dev/net && mknod -m 0666 ${path} c 10 200 && modprobe tun`];
      case 'ENODEV':
      case 'ENXIO':
        return [`the kernel has no TUN driver: modprobe tun`];
      case 'EACCES':
        return [`${path} may not be opened by this user: chmod 0666 ${path} as root, or run this command as root`];
      default:
        return [
          `${path} cannot be opened (${code}): run as root on a host or in a container that is allowed to use it`,
        ];
    }
  }
}

function missingUnshare(): string[] {
  const unshare = findProgram('unshare');
  if (unshare === undefined) return [];
  if (process.getuid?.() === 0) {
    const works = spawnSync(unshare, ['--net', '--mount', 'true'], { stdio: 'ignore' }).status === 0;
    return works
      ? []
      : ['no right to make network namespaces: run in a container started with --privileged, or on a VM'];
  }
  const works = spawnSync(unshare, ['--user', '--map-root-user', '--net', '--mount', 'true'], { stdio: 'ignore' });
  return works.status === 0
    ? []
    : [
        'no right to make namespaces: run as root, or allow user namespaces (sysctl -w kernel.unprivileged_userns_clone=1)',
      ];
}

function output(program: string, args: readonly string[]): string {
  return spawnSync(program, args, { encoding: 'utf8' }).stdout ?? '';
}

const RUSTUP = "install it with rustup: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh";

/** Program → Debian package. */
const DEMO_PROGRAMS: Readonly<Record<string, string>> = {
  ip: 'iproute2',
  unshare: 'util-linux',
  nsenter: 'util-linux',
  mount: 'mount',
  ping: 'iputils-ping',
  curl: 'curl',
};

const TEST_PROGRAMS: Readonly<Record<string, string>> = {
  ...DEMO_PROGRAMS,
  'ansible-lint': 'ansible-lint',
  'ansible-playbook': 'ansible-core',
  'cloud-init': 'cloud-init',
  dig: 'bind9-dnsutils',
  dnsmasq: 'dnsmasq-base',
  dnsperf: 'dnsperf',
  fish: 'fish',
  iperf3: 'iperf3',
  iptables: 'iptables',
  mandoc: 'mandoc',
  lintian: 'lintian',
  nsd: 'nsd',
  nsupdate: 'bind9-dnsutils',
  'qemu-img': 'qemu-utils',
  prometheus: 'prometheus',
  promtool: 'prometheus',
  ssh: 'openssh-client',
  'ssh-keygen': 'openssh-client',
  sshd: 'openssh-server',
  'systemd-notify': 'systemd',
  tcpdump: 'tcpdump',
  tshark: 'tshark',
  unbound: 'unbound',
  xorriso: 'xorriso',
  zsh: 'zsh',
};
