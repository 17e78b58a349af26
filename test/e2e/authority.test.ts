/**
 * The certificate authority is rolled over under a running fleet, with connections open between all hosts and one agent
 * away; and an agent was away for longer than its certificate lived. Budget: 90 s.
 */
import assert from 'node:assert/strict';
import { createPublicKey, X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { StateFolder } from '../../agent/shell/identity.ts';
import { readAnchors } from '../../agent/shell/trust-anchors.ts';
import { certifyAgent } from '../../mapserver/shell/certificate-authority.ts';
import { openOverlay } from '../../mapserver/shell/overlay-files.ts';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import type { LabProcess } from '../lab/lab-process.ts';
import { type Agent, Overlay } from '../lab/overlay.ts';
import type { HeartbeatReport } from '../lab/traffic/heartbeat.ts';
import { startHeartbeat, startServer } from '../lab/traffic.ts';
import { waitFor } from '../lab/wait.ts';
import { requireLab } from './require.ts';

requireLab();

const DAY = 86_400_000;

describe('certificates of a running fleet', () => {
  let lab: Lab;
  let internet: Internet;
  let overlay: Overlay;
  let first: string;
  const fleet: Agent[] = [];
  const heartbeats: LabProcess[] = [];

  before(async () => {
    const dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'authority' });
    internet = await Internet.build(lab, { clouds: ['a', 'b', 'c'], families: [4] });
    overlay = await Overlay.start(await internet.attach('mapserver', 'c'), { dataplane });
    for (const [i, cloud] of ['a', 'b', 'c'].entries()) fleet.push(await joined(`host-${cloud}`, cloud, eidOf(i)));
    for (const [i, agent] of fleet.entries()) await startServer(agent.host, eidOf(i));
    for (const [i, { host }] of fleet.entries())
      heartbeats.push(await startHeartbeat(host, eidOf((i + 1) % fleet.length)));
    first = (await authority()).authority.fingerprint;
  });
  after(() => lab?.close());

  it('all get certificates of the new authority, and no connection is lost meanwhile', async (t) => {
    const [, , away] = fleet;
    assert.ok(away !== undefined);
    await away.daemon.stop();
    await mapServer('ca', 'rotate');
    const { authority: present, retiring } = await authority();
    assert.equal(retiring?.fingerprint, first);
    await waitFor('those that are here were seen with a new one', async () => {
      return (await authority()).retiring?.dependents.agents === 1;
    });
    await assert.rejects(mapServer('ca', 'retire'), /1 agents have certificates of it/, 'one is away');
    away.start();
    await away.ready();
    await waitFor('nobody depends on the former', async () => (await authority()).retiring?.dependents.agents === 0);
    await mapServer('ca', 'retire');
    for (const agent of fleet) {
      await waitFor(`${agent.host.name} trusts the new one alone`, () => {
        const [anchor, ...more] = readAnchors(identityOf(agent).ca);
        return more.length === 0 && hex(anchor) === present.fingerprint;
      });
      assert.ok(new X509Certificate(identityOf(agent).certificate).verify(publicKeyOf(agent)));
    }
    await Promise.all(fleet.map((agent) => agent.ready()));
    await goOn();
    const gaps = heartbeats.map((each) => beats(each)?.longestGapMs);
    t.diagnostic(`longest gaps of the connections: ${gaps.join(', ')} ms`);
  });

  it('all come back after a restart of everything that has certificates, and new hosts join', async () => {
    await overlay.mapServer.daemon.kill9();
    overlay.mapServer.daemon.start();
    await overlay.mapServer.ready();
    for (const agent of fleet) {
      await agent.daemon.kill9();
      agent.start();
    }
    await Promise.all(fleet.map((agent) => agent.ready()));
    const latest = await joined('latest', 'a', '10.77.0.9');
    await latest.host.exec(['ping', '-c', '3', '-i', '0.2', '-W', '5', eidOf(1)]);
    await goOn();
  });

  it('one whose certificate ended while it was off is refused with the reason, and comes back with its key where that is allowed', async () => {
    const [agent] = fleet;
    assert.ok(agent !== undefined);
    await agent.daemon.stop();
    const identity = identityOf(agent);
    const { authority: issuer } = openOverlay(join(overlay.mapServer.host.dir, 'mapserver'), Date.now());
    const ended = certifyAgent(issuer, createPublicKey(identity.tlsPrivateKey), identity.xtrId, Date.now() - 35 * DAY);
    new StateFolder(agent.stateDir).writeIdentity({ ...identity, certificate: ended });
    agent.start();
    await waitFor('it says why', async () => {
      const { stdout } = await agent.stayput(['status', '--json'], { anyExit: true });
      return /expiredRenewal/.test((JSON.parse(stdout) as { mapServer: { problem: string } }).mapServer.problem);
    });
    await goOn();
    await agent.daemon.stop();
    const config = join(overlay.mapServer.host.dir, 'mapserver.json');
    const before = JSON.parse(readFileSync(config, 'utf8')) as object;
    writeFileSync(config, JSON.stringify({ ...before, enrolment: { expiredRenewal: 'allow' } }));
    await overlay.mapServer.daemon.stop();
    overlay.mapServer.daemon.start();
    await overlay.mapServer.ready();
    agent.start();
    await agent.ready();
    assert.ok(Date.parse(new X509Certificate(identityOf(agent).certificate).validTo) > Date.now());
    await goOn();
  });

  async function joined(name: string, cloud: string, eid: string): Promise<Agent> {
    return await overlay.join(await internet.attach(name, cloud), { eids: [`${eid}/32`] });
  }

  function mapServer(...args: string[]) {
    return overlay.mapServer.stayput(['mapserver', ...args]);
  }

  async function authority(): Promise<AuthorityView> {
    return JSON.parse((await mapServer('ca', 'show', '--json')).stdout) as AuthorityView;
  }

  /** Every connection that was opened at the beginning carries more. */
  async function goOn(): Promise<void> {
    for (const each of heartbeats) {
      const before = beats(each)?.received ?? 0;
      await each.waitUntil('more echoes', () => (beats(each)?.received ?? 0) > before + 20);
      const { open, resets } = beats(each) ?? {};
      assert.deepEqual({ open, resets }, { open: true, resets: 0 });
    }
  }
});

interface AuthorityView {
  readonly authority: { readonly fingerprint: string };
  readonly retiring: { readonly fingerprint: string; readonly dependents: { readonly agents: number } } | null;
}

function eidOf(index: number): string {
  return `10.77.0.${1 + index}`;
}

function beats(heartbeat: LabProcess): HeartbeatReport | undefined {
  return heartbeat.lastReport<HeartbeatReport>('heartbeat');
}

function identityOf(agent: Agent) {
  return new StateFolder(agent.stateDir).requireIdentity();
}

function publicKeyOf(agent: Agent) {
  const [anchor] = readAnchors(identityOf(agent).ca);
  assert.ok(anchor !== undefined);
  return anchor.publicKey;
}

function hex(certificate: X509Certificate | undefined): string | undefined {
  return certificate?.fingerprint256.replaceAll(':', '').toLowerCase();
}
