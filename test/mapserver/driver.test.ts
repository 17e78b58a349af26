/** What a map server hears of its store: what others write and what anyone removes, but not what it wrote itself. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { pino } from 'pino';
import type { Operation } from '../../mapserver/core/operations.ts';
import type { LearnedRecord } from '../../mapserver/core/transactions.ts';
import { AuditLog } from '../../mapserver/shell/audit-log.ts';
import { Driver } from '../../mapserver/shell/driver.ts';
import { LimitReports } from '../../mapserver/shell/limit-reports.ts';
import { MapServerMetrics } from '../../mapserver/shell/metrics.ts';
import { MemoryStore } from '../../mapserver/store/memory.ts';
import type { Store } from '../../mapserver/store/store.ts';
import type { IpPrefix } from '../../proto/address.ts';
import { DEFAULT_INSTANCE } from '../../proto/eid.ts';
import { CoreWorld } from './core-world.ts';
import { base64 } from './site-world.ts';

describe('two map servers on one store', () => {
  test('one is told of what the other wrote, and the other not again', async (t) => {
    const [writer, other] = await started(t);
    await writer.operate(addSite('paris'));
    assert.deepEqual(writer.takeHeard(), []);
    assert.deepEqual(other.takeHeard(), ['site/paris']);
    assert.deepEqual(other.sites(), ['paris']);
  });

  test('what one writes after the other is told to the one before', async (t) => {
    const [one, two] = await started(t);
    await one.operate(addSite('paris'));
    await two.operate(addKey(1));
    assert.deepEqual(one.takeHeard(), ['site/paris']);
    await one.operate({ kind: 'remove-site-key', name: 'paris', keyId: 0 });
    assert.deepEqual(one.takeHeard(), []);
    assert.deepEqual(two.takeHeard(), ['site/paris', 'site/paris']);
  });

  test('a removal is heard by both, and so is what the other writes there next', async (t) => {
    const [one, two] = await started(t);
    await one.operate(addSite('paris'));
    await one.operate({ kind: 'remove-site', name: 'paris' });
    assert.deepEqual(one.takeHeard(), ['site/paris removed']);
    assert.deepEqual(two.takeHeard(), ['site/paris', 'site/paris removed']);
    assert.deepEqual(two.sites(), []);
    await two.operate(addSite('paris'));
    assert.deepEqual(one.takeHeard(), ['site/paris']);
    assert.deepEqual(one.sites(), ['paris']);
  });

  test('a removal is heard by who wrote there again before it was told', async (t) => {
    const [one, two] = await started(t);
    await one.operate(addSite('paris'));
    await Promise.all([one.operate({ kind: 'remove-site', name: 'paris' }), one.operate(addSite('paris'))]);
    assert.deepEqual(one.takeHeard(), ['site/paris removed']);
    for (const each of [one, two]) assert.deepEqual(each.sites(), ['paris']);
  });

  test('who was refused since the other was faster writes behind it, and both know both', async (t) => {
    const [one, two] = await started(t);
    await one.operate(addSite('paris'));
    await Promise.all([one.operate(addKey(1)), two.operate(addKey(2))]);
    for (const each of [one, two]) assert.deepEqual(each.keysOf('paris'), [0, 1, 2]);
  });
});

class Server {
  private readonly driver: Driver;
  private heard: string[] = [];

  constructor(t: TestContext, store: Store, dataDir: string) {
    const { core } = new CoreWorld();
    const log = pino({ level: 'silent' });
    const metrics = new MapServerMetrics();
    const reports = new LimitReports(metrics, log);
    const audit = new AuditLog({ dataDir, maxOctets: 1_000_000, olderFiles: 1, log, count: () => {} });
    this.driver = new Driver({ core, store, metrics, reports, audit, log });
    const handle = core.handleStoreChanges.bind(core);
    t.mock.method(core, 'handleStoreChanges', (changes: readonly LearnedRecord[], now: number) => {
      this.heard.push(...changes.map(({ key, record }) => (record === undefined ? `${key} removed` : key)));
      handle(changes, now);
    });
    t.after(() => {
      this.driver.close();
      reports.close();
      audit.close();
    });
  }

  start(): Promise<void> {
    return this.driver.start();
  }

  /** Until all map servers have heard of it. */
  async operate(operation: Operation): Promise<void> {
    const result = await this.driver.operate(operation);
    assert.ok(result.ok, JSON.stringify(result));
    await turn();
    await turn();
  }

  /** What the store told since the last call. */
  takeHeard(): readonly string[] {
    const { heard } = this;
    this.heard = [];
    return heard;
  }

  sites(): readonly string[] {
    const records = [...this.driver.core.state.records()];
    return records.flatMap((record) => (record.kind === 'site' ? [record.name] : []));
  }

  keysOf(site: string): readonly number[] {
    const records = [...this.driver.core.state.records()];
    const keys = records.flatMap((record) => (record.kind === 'site' && record.name === site ? record.keys : []));
    return keys.map(({ keyId }) => keyId).sort();
  }
}

async function started(t: TestContext): Promise<[Server, Server]> {
  const dataDir = mkdtempSync(join(tmpdir(), 'stayput-driver-'));
  t.after(() => rmSync(dataDir, { recursive: true }));
  const store = new MemoryStore({ clock: () => 0 });
  const servers: [Server, Server] = [new Server(t, store, dataDir), new Server(t, store, dataDir)];
  for (const server of servers) await server.start();
  return servers;
}

function addSite(name: string): Operation {
  const prefixes = [{ prefix: '10.77.0.0/16' as IpPrefix, moreSpecifics: true }];
  return {
    kind: 'add-site',
    name,
    iid: DEFAULT_INSTANCE,
    prefixes,
    keys: [KEY],
    allowSha1: false,
    legacyReplay: false,
  };
}

function addKey(keyId: number): Operation {
  return { kind: 'add-site-key', name: 'paris', key: { ...KEY, keyId } };
}

const KEY = { keyId: 0, algorithm: 2, secret: base64('a secret of the site') } as const;
