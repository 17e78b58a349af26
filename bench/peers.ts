/** The systems of `stayput bench dataplane` besides Stayput and the bare cable. */
import { UsageError } from '../proto/errors.ts';
import { versionAtLeast } from '../runtime/preflight.ts';
import { findProgram } from '../runtime/programs.ts';
import {
  ALL_KINDS,
  choosePrograms,
  firstLine,
  nebulaCert,
  nebulaVersion,
  type PeerOptions,
  type PeerProgram,
  wireguardVersion,
} from './peer-programs.ts';
import { VXLAN } from './systems/kernel.ts';
import { nebula } from './systems/nebula.ts';
import { openvpn } from './systems/openvpn.ts';
import { stayputBuild } from './systems/stayput.ts';
import type { System } from './systems/system.ts';
import { tinc } from './systems/tinc.ts';
import { wireguard } from './systems/wireguard.ts';

/** The first nebula that can use offloads of the TUN device and of UDP sockets. */
const NEBULA_WITH_OFFLOADS = '1.12.0';

/**
 * @param note what is left out although it is there, and why
 * @throws UsageError about a name or a path
 */
export function choosePeers(options: PeerOptions, note: (line: string) => void): System[] {
  const { programs, others } = choosePrograms(options, ALL_KINDS, ['vxlan']);
  const chosen: System[] = others.includes('vxlan') ? [VXLAN] : [];
  for (const program of programs) {
    const systems = systemsOf(program);
    if (typeof systems !== 'string') chosen.push(...systems);
    else if (program.wanted) throw new UsageError(systems);
    else note(`${program.path} is left out: ${systems}`);
  }
  return chosen;
}

/** A line of text says why it cannot take part. */
function systemsOf({ kind, name, path }: PeerProgram): readonly System[] | string {
  switch (kind) {
    case 'stayput':
      return [stayputBuild(name, path)];
    case 'wireguard-go':
      return [wireguard(name, path, wireguardVersion(path))];
    case 'nebula': {
      const found = nebulaCert(path);
      if ('problem' in found) return found.problem;
      const version = nebulaVersion(path);
      const programs = { nebula: path, cert: found.cert };
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
