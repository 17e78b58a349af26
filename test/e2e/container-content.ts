/** What goes into the images: what a package installs, of what this checkout has built. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageInputs, writeTree } from '../../scripts/package-tree.ts';
import type { ImageContent } from '../lab/container-engine.ts';

/** Makes `folder`. */
export async function imageContent(folder: string, version: string): Promise<ImageContent> {
  writeTree(folder, await packageInputs(version));
  return { program: join(folder, 'lib', 'stayput'), dataplane: join(folder, 'bin') };
}

/** What the program says of itself in the next image. */
export function setVersion({ program }: ImageContent, version: string): void {
  const file = join(program, 'package.json');
  const manifest = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  writeFileSync(file, JSON.stringify({ ...manifest, version }));
}
