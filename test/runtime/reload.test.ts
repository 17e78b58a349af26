import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { moduleLog } from '../../runtime/log.ts';
import { LogLevels, type LogLevelView } from '../../runtime/log-level.ts';
import { Reload } from '../../runtime/reload.ts';

const log = pino({ level: 'silent' });

interface Settings {
  readonly port: number;
  readonly dns: { readonly upstreams: readonly string[]; readonly listen: readonly string[] };
}

test('what can be applied is, and the rest is named each time until it is put back', () => {
  const first: Settings = { port: 1, dns: { upstreams: ['a'], listen: ['x'] } };
  let file: Settings = first;
  const seen: (readonly string[])[] = [];
  const reload = new Reload(first, () => file, { 'dns.upstreams': ({ dns }) => seen.push(dns.upstreams) }, log);
  assert.deepEqual(reload.run(), { applied: [], needRestart: [] });
  file = { port: 2, dns: { upstreams: ['b'], listen: ['x'] } };
  assert.deepEqual(reload.run(), { applied: ['dns.upstreams'], needRestart: ['port'] });
  assert.deepEqual(reload.run(), { applied: [], needRestart: ['port'] });
  file = { ...file, port: 1 };
  assert.deepEqual(reload.run(), { applied: [], needRestart: [] });
  assert.deepEqual(seen, [['b']]);
});

test('a file that is wrong changes nothing', () => {
  const reload = new Reload<Settings>(
    { port: 1, dns: { upstreams: [], listen: [] } },
    () => {
      throw new Error('wrong');
    },
    { port: () => assert.fail() },
    log,
  );
  assert.throws(() => reload.run(), /wrong/);
});

test('a level that was set for a while goes back to the configured one, which may have changed', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_000_000 });
  const levels = new LogLevels(pino({ level: 'info' }), 'info');
  const now = (): LogLevelView => levels.view;
  levels.set('debug', 60_000);
  assert.deepEqual(now(), {
    level: 'debug',
    configured: 'info',
    until: new Date(1_060_000).toISOString(),
    modules: [],
  });
  levels.configure('warn');
  assert.equal(now().level, 'debug');
  t.mock.timers.tick(60_000);
  assert.deepEqual(now(), { level: 'warn', configured: 'warn', until: null, modules: [] });
  levels.set('trace', null);
  t.mock.timers.tick(1_000_000);
  assert.equal(now().level, 'trace');
  levels.restore();
  assert.equal(now().level, 'warn');
});

test('a part of a daemon has a level of its own for a while, and else that of the whole', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_000_000 });
  const lines: { readonly module?: string; readonly msg: string }[] = [];
  const root = pino({ level: 'info' }, { write: (line: string) => lines.push(JSON.parse(line)) });
  const levels = new LogLevels(root, 'info');
  const [dns, platform] = [moduleLog(root, 'dns'), moduleLog(root, 'platform')];
  assert.equal(moduleLog(root, 'dns'), dns);
  const speak = (): string[] => {
    lines.length = 0;
    for (const each of [root, dns, platform]) each.debug('x');
    return lines.map(({ module = 'whole' }) => module);
  };
  assert.deepEqual(speak(), []);
  levels.set('debug', 60_000, 'dns');
  assert.deepEqual(speak(), ['dns']);
  assert.deepEqual(levels.view.modules, [
    { module: 'dns', level: 'debug', own: true, until: new Date(1_060_000).toISOString() },
    { module: 'platform', level: 'info', own: false, until: null },
  ]);
  levels.set('warn', null);
  assert.deepEqual(speak(), ['dns'], 'the whole changes nothing of what was set for a part');
  t.mock.timers.tick(60_000);
  assert.deepEqual([dns.level, platform.level], ['warn', 'warn']);
  levels.set('debug', null, 'platform');
  levels.restore('platform');
  assert.equal(platform.level, 'warn');
  levels.set('trace', null, 'platform');
  levels.restore();
  assert.deepEqual([root.level, dns.level, platform.level], ['info', 'info', 'info']);
  assert.throws(() => levels.set('debug', null, 'x'), /no module "x" here; there are dns, platform/);
});
