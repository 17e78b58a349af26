/**
 * The commands in pages for users. A fenced block without a language is commands to type; output and files have one of
 * OF_FILES. PLAN says of each block of a page, in its order, where a test runs it, or why none does.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';

/** `workload`: one behind `db`, with nothing but a network stack. */
export type Machine = 'map server' | 'db' | 'web' | 'workload';

export type Treatment =
  /** On these machines, one after the other. */
  { readonly begins: string; readonly on: readonly Machine[] } | { readonly begins: string; readonly notRun: string };

export interface Block {
  readonly page: string;
  readonly line: number;
  /** Empty for commands. */
  readonly language: string;
  readonly text: string;
}

/** Languages of what is to be read and not typed. */
export const OF_FILES: ReadonlySet<string> = new Set([
  'hcl',
  'ini',
  'json',
  'mermaid',
  'rust',
  'text',
  'ts',
  'xml',
  'yaml',
]);

/** All fenced blocks, also those inside lists, without the indentation of these. */
export function fencedBlocks(page: string): readonly Block[] {
  const blocks: Block[] = [];
  let open: { readonly indent: number; readonly block: Omit<Block, 'text'>; readonly text: string[] } | undefined;
  for (const [i, line] of readFileSync(join(PROJECT_ROOT, page), 'utf8').split('\n').entries()) {
    const [, indent = '', language] = /^( *)```(.*)$/.exec(line) ?? [];
    if (language === undefined) open?.text.push(line.slice(open.indent));
    else if (open === undefined) {
      open = { indent: indent.length, block: { page, line: i + 1, language: language.trim() }, text: [] };
    } else {
      blocks.push({ ...open.block, text: open.text.join('\n') });
      open = undefined;
    }
  }
  return blocks;
}

export function commandBlocks(page: string): readonly Block[] {
  return fencedBlocks(page).filter(({ language }) => !OF_FILES.has(language));
}

const MAKES_PACKAGE = 'makes the package, as the test does before it installs it';
const IN_QUICK_START = 'the same as in quick-start.md, which is run';
const IMAGES = 'test/e2e/containers.test.ts builds the images from the package and starts them with podman';
const KIT = 'test/e2e/lisp-conform.test.ts adds the site, and runs the kit at a map server and an agent';
const DEVELOPERS = 'for developers; the CI is made of it';
const BENCH = 'a form with alternatives; test/e2e/bench.test.ts runs each bench, with few rounds';

/** Pages in the order in which a reader with three fresh machines would go through them. */
export const PLAN: Readonly<Record<string, readonly Treatment[]>> = {
  'docs/workloads.md': [{ begins: 'ip addr add 10.77.1.20/32', on: ['workload'] }],
  'docs/quick-start.md': [
    { begins: 'npm ci', notRun: MAKES_PACKAGE },
    { begins: 'sudo apt-get install -y ./stayput_', on: ['map server', 'db', 'web'] },
    { begins: 'sudo -u stayput-mapserver stayput mapserver init', on: ['map server'] },
    { begins: 'sudo -u stayput-mapserver stayput token create', on: ['map server'] },
    { begins: 'sudo systemctl enable --now stayput-dataplane', on: ['db', 'web'] },
    { begins: 'sudo stayput status', on: ['db', 'web'] },
    { begins: 'sudo stayput resolve db', on: ['web'] },
    { begins: 'sudo -u stayput-mapserver stayput agents grant AGENT', on: ['map server'] },
    { begins: 'sudo stayput eid attach 10.77.1.20/32', on: ['db'] },
    { begins: 'sudo stayput eid attach 10.77.1.20/32', on: ['web'] },
  ],
  'docs/install.md': [
    { begins: 'npm ci', notRun: MAKES_PACKAGE },
    { begins: 'sudo apt-get install -y ./stayput_', notRun: IN_QUICK_START },
    { begins: 'tar -xzf stayput-', notRun: 'packages.test.ts installs, upgrades and uninstalls the tarball' },
    { begins: 'npm pack', notRun: 'fetches the packages of npm that it needs' },
    { begins: 'sudo stayput dataplane build', notRun: 'compiles for minutes' },
  ],
  'docs/mapserver.md': [
    { begins: 'stayput mapserver init', notRun: IN_QUICK_START },
    { begins: 'stayput token create', on: ['map server'] },
    { begins: 'stayput mapserver ca rotate', on: ['map server'] },
    { begins: 'stayput mapserver status', on: ['map server'] },
  ],
  'docs/dns.md': [
    { begins: 'stayput name set web', on: ['map server'] },
    { begins: 'sudo systemctl enable --now stayput-dns-host', on: ['db'] },
    {
      begins: 'stayput doctor dns',
      notRun: 'fails without a resolver of the place; test/e2e/dns-doctor.test.ts has one',
    },
    { begins: 'sudo systemctl stop stayput-agent', on: ['web'] },
    { begins: "printf 'key", on: ['map server'] },
    { begins: 'nsupdate -k', on: ['map server'] },
  ],
  'docs/policy.md': [{ begins: 'stayput policy check', on: ['map server'] }],
  'docs/interop.md': [{ begins: 'stayput site add paris', on: ['map server'] }],
  'docs/conformance.md': [
    { begins: 'stayput conform 192.0.2.10 --site-key', notRun: KIT },
    { begins: 'stayput site add conform', notRun: KIT },
    { begins: 'stayput conform 192.0.2.20 --role xtr', notRun: KIT },
    { begins: 'stayput conform 127.0.0.1 --role dns', notRun: 'test/conform/dns.test.ts has the kit ask name servers' },
    { begins: 'stayput conform keygen', notRun: 'test/conform/report.test.ts signs and verifies' },
  ],
  'docs/monitoring.md': [
    { begins: 'curl -s http://127.0.0.1:9341/readyz', on: ['db'] },
    { begins: 'openssl rand', on: ['map server'] },
  ],
  'docs/platforms.md': [{ begins: 'stayput doctor platform', on: ['db'] }],
  'docs/cli.md': [{ begins: 'stayput lisp decode', on: ['db'] }],
  'docs/operate.md': [
    {
      begins: 'cd /opt/stayput && git pull',
      notRun: 'upgrades a checkout; packages are upgraded in root-install.test.ts',
    },
    { begins: 'sudo stayput mapserver backup', on: ['map server'] },
    {
      begins: 'sudo systemctl stop stayput-agent',
      notRun: 'for a host whose identity is of no use any more; quick-start.md joins',
    },
    {
      begins: 'sudo stayput agent reset-identity',
      notRun: 'two alternatives, for copied machines: test/e2e/copy.test.ts',
    },
  ],
  'docs/provisioning.md': [
    { begins: 'sudo systemctl enable --now stayput-agent-join', on: ['web'] },
    { begins: 'cd deploy/ansible', notRun: 'test/e2e/provisioning-ansible.test.ts runs the playbook on other hosts' },
    { begins: 'qemu-img convert', notRun: 'test/e2e/provisioning-ovf.test.ts does both, with a small disk' },
  ],
  'docs/troubleshooting.md': [
    {
      begins: 'stayput status',
      notRun: 'for a host with a fault; test/e2e/doctor.test.ts and test/cli/bugreport.test.ts run each',
    },
  ],
  'docs/containers.md': [
    { begins: 'for image in', notRun: 'needs the base images of a registry' },
    { begins: 'deploy/container/debian-base.sh', notRun: IMAGES },
    { begins: 'cd deploy/container', notRun: `${IMAGES}-compose` },
    { begins: 'cd deploy/container', notRun: `${IMAGES}-compose` },
    { begins: 'kubectl -n stayput exec', notRun: 'needs a cluster; test/containers checks the manifests' },
  ],
  'docs/demo.md': [{ begins: 'stayput demo', notRun: 'a form with alternatives; test/e2e/demo.test.ts runs the demo' }],
  'docs/performance.md': [
    { begins: 'sudo stayput bench dataplane', notRun: BENCH },
    { begins: 'sudo stayput bench flood', notRun: BENCH },
    { begins: 'sudo stayput bench dns', notRun: BENCH },
    { begins: 'sudo stayput bench handover', notRun: BENCH },
  ],
  'README.md': [
    { begins: 'npm ci\nnpm run demo', notRun: 'test/e2e/demo.test.ts runs the demo' },
    { begins: 'sudo apt-get install', notRun: IN_QUICK_START },
    { begins: 'sudo apt-get install', notRun: IN_QUICK_START },
  ],
  'CONTRIBUTING.md': [
    { begins: 'npm ci', notRun: DEVELOPERS },
    { begins: 'STAYPUT_FUZZ_FACTOR', notRun: DEVELOPERS },
    { begins: 'npm run fuzz', notRun: DEVELOPERS },
    { begins: 'npm run test:unit', notRun: DEVELOPERS },
  ],
  'deploy/hooks/README.md': [
    {
      begins: 'sudo install -D -m 0755 deploy/hooks/libvirt',
      notRun: 'needs a libvirtd; test/e2e/hooks.test.ts runs the hook',
    },
    { begins: 'STAYPUT_EID', notRun: 'with an ellipsis; test/e2e/hooks.test.ts moves a guest of QEMU in this way' },
    { begins: 'export STAYPUT_EID', notRun: 'with placeholders; test/e2e/hooks.test.ts moves a process in this way' },
    {
      begins: 'sudo install -m 0755',
      notRun: 'with an ellipsis; test/e2e/hooks.test.ts starts a container in this way',
    },
  ],
  'deploy/helm/stayput/README.md': [
    { begins: 'helm install', notRun: 'needs a cluster; test/containers renders the chart and checks what comes out' },
  ],
};
