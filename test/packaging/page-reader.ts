/**
 * Who types what the pages say: has done before what the text around a block asks for, and puts in what is his own for
 * the names and addresses of the examples.
 */
import assert from 'node:assert/strict';
import type { ExecResult } from '../lab/lab.ts';
import { type Block, fencedBlocks, type Machine } from './documented-commands.ts';
import { HOSTS, MAP_SERVER, type RootWorld } from './root-world.ts';

export class PageReader {
  private readonly world: RootWorld;
  private readonly onWorkload: (command: string) => Promise<ExecResult>;
  private readonly tokens: string[] = [];
  private mapServerConfig: Record<string, unknown> = {};

  constructor(world: RootWorld, onWorkload: (command: string) => Promise<ExecResult>) {
    this.world = world;
    this.onWorkload = onWorkload;
  }

  async type(block: Block, machine: Machine): Promise<void> {
    for (const text of await this.prepared(block, machine)) {
      const { stdout } = await this.exec(machine, text);
      this.tokens.push(...(stdout.match(/^stp1\.\S+$/gm) ?? []));
    }
  }

  /** Adds to the map server's configuration, and starts it again. */
  async configureMapServer(keys: Record<string, unknown>): Promise<void> {
    this.mapServerConfig = { ...this.mapServerConfig, ...keys };
    await this.exec(
      'map server',
      'cat > /etc/stayput/mapserver.json && systemctl restart stayput-mapserver',
      JSON.stringify(this.mapServerConfig),
    );
  }

  private exec(machine: Machine, command: string, input = ''): Promise<ExecResult> {
    if (machine === 'workload') return this.onWorkload(command);
    const root = machine === 'map server' ? this.world.mapServer : this.world[machine];
    return root.exec(`cd /root\n${command}`, { input, timeoutMs: 300_000 });
  }

  private async prepared(block: Block, machine: Machine): Promise<string[]> {
    const { text } = block;
    if (text.includes(' agents grant AGENT ')) {
      const { stdout } = await this.exec('map server', 'stayput agents list --json');
      const agents = JSON.parse(stdout) as { xtrId: string }[];
      assert.equal(agents.length, 2);
      return agents.map(({ xtrId }) => text.replace('AGENT', xtrId.slice(0, 8)));
    }
    if (text.includes('agent join')) {
      const token = this.tokens[machine === 'db' ? 0 : 1] ?? '';
      await this.exec(machine, 'umask 077; cat > token', token);
      return [machine === 'db' ? text : text.replace(HOSTS.db, HOSTS.web).replace('--name db', '--name web')];
    }
    return [await this.filledIn(block, machine)];
  }

  private async filledIn({ page, text }: Block, machine: Machine): Promise<string> {
    const { mapServer } = this.world.addresses;
    switch (page) {
      case 'docs/mapserver.md': {
        if (!text.includes('token revoke ID')) return text;
        const { stdout } = await this.exec('map server', 'stayput token list --json');
        const [token] = JSON.parse(stdout) as { id: string }[];
        assert.ok(token !== undefined);
        return text.replace('revoke ID', `revoke ${token.id}`);
      }
      case 'docs/dns.md': {
        if (text.includes('stayput-dns-host')) {
          await this.exec(machine, 'cat > /etc/stayput/agent.json', '{ "dns": { "host": "auto" } }');
          await this.exec(machine, 'echo nameserver 192.0.2.53 > /etc/resolv.conf; systemctl restart stayput-agent');
        }
        if (text.includes('nsupdate')) {
          const [zone, updates] = files(page, '"zone": {').map(
            (file) => (JSON.parse(file.replaceAll('192.0.2.10', mapServer)) as { zone: object }).zone,
          );
          await this.configureMapServer({ zone: { ...zone, ...updates } });
        }
        return text.replaceAll('192.0.2.10', mapServer);
      }
      case 'docs/policy.md': {
        const [policy = ''] = files(page, 'default deny');
        // What is gone back to.
        await this.exec(machine, 'echo default allow > open.policy; stayput policy apply open.policy');
        await this.exec(machine, 'cat > overlay.policy', policy);
        return text;
      }
      case 'docs/interop.md': {
        await this.exec(machine, 'umask 077; echo a secret of the site > paris.key');
        return text;
      }
      case 'docs/operate.md': {
        await this.exec(machine, 'umask 077; echo a passphrase that is long > /root/backup-passphrase');
        return text.replace(/stayput-\d{4}-\d\d-\d\d\.backup/, 'stayput-$(date +%F).backup');
      }
      case 'docs/provisioning.md': {
        const { stdout } = await this.exec('map server', 'stayput token create --eid 10.77.0.7/32 --name third');
        const [file = '{}'] = files(page, '"mapServer"');
        const join = { ...JSON.parse(file), token: stdout.trim(), eids: ['10.77.0.7/32'], names: ['third'] };
        await this.exec(
          machine,
          `systemctl disable --now stayput-agent stayput-agent-dns.socket
           rm -r /var/lib/stayput/agent/*
           umask 077; cat > /etc/stayput/join.json`,
          JSON.stringify(join),
        );
        return text;
      }
      default:
        return text;
    }
  }
}

/** What the page shows of files in which `part` is. */
function files(page: string, part: string): string[] {
  return fencedBlocks(page)
    .filter(({ language, text }) => language !== '' && text.includes(part))
    .map(({ text }) => text.replaceAll('https://map.example.org', `https://${MAP_SERVER}`));
}
