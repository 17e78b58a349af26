/**
 * What confines the data plane, as the kernel and its agent say. That it needs nothing it has given up is checked by
 * the end of every laboratory (test/lab/lab.ts). Budget: 30 s.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { Internet } from '../lab/internet.ts';
import { Lab } from '../lab/lab.ts';
import { type Agent, Overlay } from '../lab/overlay.ts';
import { requireLab } from './require.ts';

requireLab();

describe('the sandbox of the data plane', () => {
  let lab: Lab;
  let agent: Agent;
  let dataplane: string;

  before(async () => {
    dataplane = await ensureDataplaneBuilt(() => {});
    lab = await Lab.create({ name: 'sandbox' });
    const internet = await Internet.build(lab, { clouds: ['a'], families: [4] });
    const overlay = await Overlay.start(await internet.attach('mapserver', 'a'), { dataplane });
    agent = await overlay.join(await internet.attach('host', 'a'), { eids: ['10.77.0.1/32'] });
  });
  after(() => lab?.close());

  /** Also with a second thread for packets and the one that compiles policies, started between the two parts of it. */
  async function restart(...options: string[]): Promise<void> {
    await agent.dataplane.stop();
    agent.dataplane.install([dataplane, '--socket', agent.dataplaneSocket, ...options]);
    agent.startDataplane();
    await agent.ready();
  }

  it('is there unless it is switched off, for each thread', async () => {
    await restart('--threads', '2');
    const { stdout, sandbox } = await status(agent);
    assert.deepEqual(sandbox, ['landlock', 'seccomp']);
    assert.match(stdout, /Data plane .*confined by landlock and seccomp/);
    const threads = ofThreads(agent);
    assert.equal(threads.length, 3);
    for (const thread of threads) assert.match(thread, /^NoNewPrivs:\t1$.*^Seccomp:\t2$/ms);
    const metrics = await agent.metrics();
    assert.equal(metrics.get('stayput_dataplane_refused_system_calls_total'), 0);
    assert.equal(metrics.get('stayput_dataplane_fallbacks_total{reason="landlock"}'), 0);
    assert.equal(metrics.get('stayput_dataplane_fallbacks_total{reason="seccomp"}'), 0);
    assert.ok((metrics.get('stayput_dataplane_rss_bytes') ?? 0) > 1_000_000, 'what it has to read is open already');
  });

  it('can be switched off', async () => {
    await restart('--sandbox', 'off');
    const { stdout, sandbox } = await status(agent);
    assert.deepEqual(sandbox, []);
    assert.match(stdout, /Data plane .*no sandbox/);
    for (const thread of ofThreads(agent)) assert.match(thread, /^Seccomp:\t0$/m);
  });
});

async function status(agent: Agent): Promise<{ stdout: string; sandbox: unknown }> {
  const { stdout: json } = await agent.stayput(['status', '--json'], { anyExit: true });
  const { stdout } = await agent.stayput(['status'], { anyExit: true });
  return { stdout, sandbox: (JSON.parse(json) as { dataplane: { sandbox: unknown } }).dataplane.sandbox };
}

/** What the kernel says of each thread of its data plane. */
function ofThreads(agent: Agent): string[] {
  const { pid } = agent.dataplane.process;
  return readdirSync(`/proc/${pid}/task`).map((thread) => readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8'));
}
