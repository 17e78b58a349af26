/** What goes into the images, of what this checkout has built: the program with its Node, and the data plane. */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { IMAGE_NODE } from './container-tools.ts';
import type { Host } from './lab.ts';

/** The build contexts that deploy/container/Containerfile takes. */
export interface ImageContent {
  readonly program: string;
  readonly dataplane: string;
}

export async function imageContent(host: Host): Promise<ImageContent> {
  const program = join(host.dir, 'program');
  const dataplane = join(host.dir, 'dataplane');
  for (const part of ['agent', 'cli', 'conform', 'mapserver', 'proto', 'runtime'])
    cpSync(join(PROJECT_ROOT, 'dist', part), join(program, 'dist', part), { recursive: true });
  for (const name of installed()) cpSync(join(PROJECT_ROOT, name), join(program, name), { recursive: true });
  mkdirSync(join(program, 'bin'));
  cpSync(IMAGE_NODE, join(program, 'bin', 'node'));
  mkdirSync(dataplane);
  const built = await ensureDataplaneBuilt(() => {});
  await host.exec(['strip', '-o', join(dataplane, 'stayput-dataplane'), built]);
  return { program, dataplane };
}

/** What the program says of itself in the next image. */
export function setVersion({ program }: ImageContent, version: string): void {
  const manifest = JSON.parse(readFileSync(join(PROJECT_ROOT, 'package.json'), 'utf8')) as Record<string, unknown>;
  writeFileSync(join(program, 'package.json'), JSON.stringify({ ...manifest, version }));
}

/** The folders of the packages that are needed at run time; the optional SQLite is in Node itself. */
function installed(): string[] {
  const lock = JSON.parse(readFileSync(join(PROJECT_ROOT, 'node_modules/.package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; optional?: boolean; devOptional?: boolean }>;
  };
  return Object.entries(lock.packages)
    .filter(([, { dev, optional, devOptional }]) => dev !== true && optional !== true && devOptional !== true)
    .map(([name]) => name);
}
