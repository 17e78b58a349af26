/** The systems of `stayput bench handover` besides Stayput. */
import { UsageError } from '../../proto/errors.ts';
import {
  choosePrograms,
  nebulaCert,
  nebulaVersion,
  type PeerOptions,
  type PeerProgram,
  wireguardVersion,
} from '../peer-programs.ts';
import { nebula } from './systems/nebula.ts';
import type { HandoverSystem } from './systems/system.ts';
import { wireguard } from './systems/wireguard.ts';

/**
 * @param note what is left out although it is there, and why
 * @throws UsageError about a name or a path
 */
export function chooseHandoverPeers(options: PeerOptions, note: (line: string) => void): HandoverSystem[] {
  const { programs } = choosePrograms(options, ['wireguard-go', 'nebula'], []);
  return programs.flatMap((program) => {
    const system = systemOf(program);
    if (typeof system !== 'string') return [system];
    if (program.wanted) throw new UsageError(system);
    note(`${program.path} is left out: ${system}`);
    return [];
  });
}

/** A line of text says why it cannot take part. */
function systemOf({ kind, name, path }: PeerProgram): HandoverSystem | string {
  if (kind === 'wireguard-go') return wireguard(name, path, wireguardVersion(path));
  const found = nebulaCert(path);
  if ('problem' in found) return found.problem;
  return nebula(name, { nebula: path, cert: found.cert }, nebulaVersion(path));
}
