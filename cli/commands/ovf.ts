import { basename, extname } from 'node:path';
import type { Command } from 'commander';
import { UsageError } from '../../proto/errors.ts';
import { VERSION } from '../../runtime/project-root.ts';
import { wholeNumber } from '../option-values.ts';
import { printJson, printLines } from '../output.ts';

interface OvfOptions {
  readonly out: string;
  readonly mapServer: string;
  readonly cpus: string;
  readonly memory: string;
  readonly json?: boolean;
}

export function registerOvfCommands(program: Command): void {
  program
    .command('ovf')
    .description('Images for hypervisors that deploy OVF')
    .command('create')
    .description('Write the OVF package of a disk image: who deploys it is asked for map server, token, EID and name')
    .argument('<disk>', 'VMDK (streamOptimized) or QCOW2 image with Stayput and stayput-agent-join enabled')
    .requiredOption('--out <file>', 'NAME.ova, or NAME.ovf with manifest and disk beside it')
    .option('--map-server <url>', 'filled in already for who deploys it', '')
    .option('--cpus <n>', 'CPUs of the machine', '1')
    .option('--memory <mb>', 'memory of the machine, in MB', '1024')
    .option('--json', 'print JSON')
    .action(create);
}

async function create(disk: string, { out, mapServer, cpus, memory, json }: OvfOptions): Promise<void> {
  const [{ ovfDescriptor }, { readDiskImage }, { writePackage }] = await Promise.all([
    import('../ovf/descriptor.ts'),
    import('../ovf/disk-image.ts'),
    import('../ovf/package.ts'),
  ]);
  const extension = extname(out);
  const name = basename(out, extension);
  if (extension !== '.ova' && extension !== '.ovf') throw new UsageError(`--out ${out}: give NAME.ova or NAME.ovf`);
  if (!/^[\w-][\w.-]{0,63}$/.test(name))
    throw new UsageError(`--out ${out}: letters, digits, "-", "_", "." in its name`);
  const image = readDiskImage(disk);
  const diskName = `${name}-disk.${image.extension}`;
  const descriptor = ovfDescriptor({
    name,
    version: VERSION,
    cpus: wholeNumber('--cpus', cpus, 1, 256),
    memoryMb: wholeNumber('--memory', memory, 128, 1 << 20),
    disk: { ...image, fileName: diskName },
    mapServer,
  });
  const written = await writePackage({ name, descriptor, diskPath: disk, diskName }, out);
  if (json === true) printJson({ written });
  else printLines(...written);
}
