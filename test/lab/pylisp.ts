/** pylisp (S. Steffann), a LISP implementation that is not ours: its codec, and lispd, an ETR. `scripts/install-lisp-tools.sh` brings it. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import type { Host } from './lab.ts';
import type { LabProcess } from './lab-process.ts';

const FOLDER = join(PROJECT_ROOT, '.ci', 'lisp-tools', 'pylisp');
/** Debian's, which has the bit strings that pylisp is written with. */
const PYTHON = '/usr/bin/python3';

/** Why it cannot be run here; undefined if it can. */
export function missingPylisp(): string | undefined {
  return existsSync(FOLDER) ? undefined : `${FOLDER} not found: sudo scripts/install-lisp-tools.sh`;
}

/** A command that runs a program in Python, which may import `pylisp`. */
export function pylispCommand(program: string, ...args: readonly string[]): string[] {
  return ['env', `PYTHONPATH=${FOLDER}`, PYTHON, '-c', program, ...args];
}

export interface LispdOptions {
  readonly rloc: string;
  readonly mapServer: string;
  readonly secret: string;
  readonly prefixes: readonly string[];
}

/** Registers the prefixes with HMAC-SHA-256-128, answers Map-Requests for them and takes data packets. */
export function startLispd(host: Host, { rloc, mapServer, secret, prefixes }: LispdOptions): LabProcess {
  const home = join(host.dir, 'lispd');
  mkdirSync(join(home, '.pylisp', 'lispd'), { recursive: true });
  const nodes = (family: 4 | 6) =>
    prefixes
      .filter((prefix) => prefix.includes(':') === (family === 6))
      .map((prefix) => `ETRNode('${prefix}', locators=locators, map_servers=servers)`);
  writeFileSync(
    join(home, '.pylisp', 'lispd', 'settings.py'),
    `from ipaddress import ip_address
from pylisp.application.lispd.address_tree import ContainerNode, ETRNode
from pylisp.application.lispd.map_server_registration import MapServerRegistration
from pylisp.packet.lisp.control import LocatorRecord, KEY_ID_HMAC_SHA_256_128
LISTEN_ON = [ip_address('${rloc}')]
locators = [LocatorRecord(priority=1, weight=100, local=True, reachable=True, address=ip_address('${rloc}'))]
servers = [MapServerRegistration('${mapServer}', key_id=KEY_ID_HMAC_SHA_256_128, key=b'${secret}', proxy_map_reply=True)]
INSTANCES = {0: {
  1: ContainerNode('0.0.0.0/0', [${nodes(4).join(', ')}]),
  2: ContainerNode('::/0', [${nodes(6).join(', ')}]),
}}
`,
  );
  const env = { HOME: home, PYTHONPATH: FOLDER, PYTHONWARNINGS: 'ignore', PYTHONUNBUFFERED: '1' };
  return host.spawn('lispd', [PYTHON, join(FOLDER, 'lispd'), '--debug'], env);
}
