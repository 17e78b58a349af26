/**
 * The overlay as its users have it: three Debians in three networks with nothing of ours on them, and the package. What
 * is done to them is what an administrator would type.
 */
import { copyFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PROJECT_ROOT, VERSION } from '../../runtime/project-root.ts';
import { run } from '../../scripts/steps.ts';
import { DebianRoot } from '../lab/debian-root.ts';
import { type Attachment, Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import { LabError } from '../lab/lab-error.ts';
import { waitFor } from '../lab/wait.ts';

export const MAP_SERVER = 'map.example.org';
export const HOSTS = { db: '10.77.0.5', web: '10.77.0.6' } as const;
export const NEXT_VERSION = VERSION.replace(/\d+$/, (patch) => String(Number(patch) + 1));
/** Where the package is in each root. */
export const PACKAGE = `/root/stayput_${VERSION}.deb`;
export const NEXT_PACKAGE = '/root/next.deb';

export type HostName = keyof typeof HOSTS;

export class RootWorld {
  readonly lab: Lab;
  readonly mapServer: DebianRoot;
  readonly db: DebianRoot;
  readonly web: DebianRoot;
  /** In the underlay. */
  readonly addresses: { readonly mapServer: string; readonly db: string };

  private constructor(
    lab: Lab,
    [mapServer, db, web]: readonly [DebianRoot, DebianRoot, DebianRoot],
    addresses: { readonly mapServer: string; readonly db: string },
  ) {
    this.lab = lab;
    this.addresses = addresses;
    this.mapServer = mapServer;
    this.db = db;
    this.web = web;
  }

  /** Whatever fails, nothing is left behind. */
  static async build(name: string): Promise<RootWorld> {
    const lab = await Lab.create({ name });
    try {
      const internet = await Internet.build(lab, { clouds: ['a', 'b', 'c'] });
      const mapServer = await internet.attach('map', 'c');
      const db = await internet.attach('db', 'a');
      const web = await internet.attach('web', 'b');
      const deb = buildPackage(lab);
      const boot = async ({ host }: Attachment): Promise<DebianRoot> => {
        const root = await DebianRoot.boot(host);
        writeFileSync(
          root.path('/etc/hosts'),
          `127.0.0.1 localhost ${host.name}\n${mapServer.address4} ${MAP_SERVER}\n`,
        );
        copyFileSync(deb, root.path(PACKAGE));
        return root;
      };
      const roots = await Promise.all([boot(mapServer), boot(db), boot(web)]);
      return new RootWorld(lab, roots, { mapServer: mapServer.address4, db: db.address4 });
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  get roots(): readonly DebianRoot[] {
    return [this.mapServer, this.db, this.web];
  }

  /** The next version of the package; its data plane is another one to whoever compares the files. */
  provideNext(): void {
    const folder = join(this.lab.dir, 'next');
    run('dpkg-deb', ['--raw-extract', this.mapServer.path(PACKAGE), folder]);
    edit(join(folder, 'DEBIAN/control'), (text) => text.replace(/^Version: .*$/m, `Version: ${NEXT_VERSION}`));
    edit(join(folder, 'usr/lib/stayput/package.json'), (text) => text.replace(`"${VERSION}"`, `"${NEXT_VERSION}"`));
    writeFileSync(join(folder, 'usr/bin/stayput-dataplane'), 'next', { flag: 'a' });
    const deb = join(this.lab.dir, 'next.deb');
    run('dpkg-deb', ['--root-owner-group', '-Zgzip', '-z1', '--build', folder, deb]);
    for (const root of this.roots) copyFileSync(deb, root.path(NEXT_PACKAGE));
  }

  async install(root: DebianRoot, deb: string = PACKAGE): Promise<void> {
    await root.exec(['dpkg', '--install', deb], INSTALLING);
  }

  /** A map server, from the installed package to one that serves. */
  async initialise(): Promise<void> {
    await this.mapServer.exec(
      `sudo -u stayput-mapserver stayput mapserver init --host ${MAP_SERVER} --overlay 10.77.0.0/16
       systemctl enable --now stayput-mapserver`,
    );
  }

  async token(name: HostName): Promise<string> {
    const { stdout } = await this.mapServer.exec(
      `sudo -u stayput-mapserver stayput token create --eid ${HOSTS[name]}/32 --name ${name}`,
    );
    return stdout;
  }

  /** From the installed package to a running agent. */
  async join(name: HostName, token: string): Promise<void> {
    await this[name].exec(
      `systemctl enable --now stayput-dataplane
       sudo -u stayput stayput agent join https://${MAP_SERVER} --eid ${HOSTS[name]} --name ${name}
       systemctl enable --now stayput-agent`,
      { input: token },
    );
  }

  /** Registered, and its data plane at work. */
  async ready(root: DebianRoot): Promise<void> {
    await waitFor(`${root.host.name} registered`, async () => (await status(root)).healthy);
  }

  close(): Promise<void> {
    return this.lab.close();
  }
}

export interface Status {
  readonly healthy: boolean;
  readonly version: string;
}

export async function status(root: DebianRoot): Promise<Status> {
  const { stdout } = await root.exec(['stayput', 'status', '--json'], { anyExit: true });
  const { registered, version, problems } = JSON.parse(stdout) as {
    registered: boolean;
    version: string;
    problems: readonly string[];
  };
  return { healthy: registered && problems.length === 0, version };
}

export async function reaches(from: DebianRoot, address: string): Promise<void> {
  const isAnswered = async (): Promise<boolean> =>
    (await from.exec(['ping', '-c', '1', '-W', '1', address], { anyExit: true })).code === 0;
  await waitFor(`${from.host.name} reaches ${address}`, isAnswered);
}

function buildPackage(lab: Lab): string {
  run(process.execPath, [SCRIPT, '--quick', '--output', lab.dir], { cwd: PROJECT_ROOT });
  const name = readdirSync(lab.dir).find((each) => each.endsWith('.deb'));
  if (name === undefined) throw new LabError('no package was made');
  return join(lab.dir, name);
}

function edit(file: string, change: (text: string) => string): void {
  writeFileSync(file, change(readFileSync(file, 'utf8')));
}

const SCRIPT = fileURLToPath(new URL('../../scripts/package-deb.js', import.meta.url));
const INSTALLING = { timeoutMs: 120_000 } as const;
