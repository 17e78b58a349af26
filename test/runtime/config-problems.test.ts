import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import type { z } from 'zod';
import { AGENT_CONFIG } from '../../agent/config.ts';
import { CONFIG } from '../../mapserver/config.ts';
import { configProblems } from '../../runtime/config-file.ts';
import { linesOfValues } from '../../runtime/json-lines.ts';
import { temporaryFolder } from './temporary-folder.ts';

function problems(t: TestContext, text: string, schema: z.ZodObject = AGENT_CONFIG) {
  const path = join(temporaryFolder(t), 'agent.json');
  writeFileSync(path, text);
  return configProblems(schema, path);
}

test('everything that is wrong is said, each with its line', (t) => {
  const text = `{
  "mtu": 12,
  "dns": {
    "listen": ["127.0.0.1:53", "nowhere"],
    "upstream": []
  },
  "logLevl": "info",
  "socket": ""
}`;
  assert.deepEqual(
    problems(t, text).map(({ line, key }) => [line, key]),
    [
      [2, 'mtu'],
      [4, 'dns.listen.1'],
      [5, 'dns.upstream'],
      [7, 'logLevl'],
      [8, 'socket'],
    ],
  );
  assert.match(problems(t, text)[3]?.problem ?? '', /unknown key "logLevl"; did you mean "logLevel"\?/);
});

test('what is not JSON is said with its line', (t) => {
  const [found, ...more] = problems(t, '{\n  "mtu": 1400,\n  oops\n}');
  assert.deepEqual([found?.line, found?.key, more.length], [3, '', 0]);
  assert.match(found?.problem ?? '', /not valid JSON/);
});

test('where nobody can listen is wrong before a daemon tries to', (t) => {
  const agent = {
    metricsListen: 'x',
    dns: { listen: ['999.1.1.1:53', 'host:70000', '[::1]:53'], upstreams: ['no one'] },
  };
  assert.deepEqual(
    problems(t, JSON.stringify(agent)).map(({ key, problem }) => [key, problem]),
    [
      ['metricsListen', 'is not HOST:PORT (an IPv6 address in brackets)'],
      ['dns.listen.0', 'is not HOST:PORT (an IPv6 address in brackets)'],
      ['dns.listen.1', 'is not HOST:PORT (an IPv6 address in brackets)'],
      ['dns.upstreams.0', 'is not ADDRESS, ADDRESS:PORT or tls://ADDRESS[:PORT]#NAME'],
    ],
  );
  const mapServer = {
    listen: 'host:70000',
    reflectorListen: ['::1:4343'],
    metricsListen: 'x',
    lisp: { listen: ['0.0.0.0'] },
    zone: { listen: ['[]:53'], notify: [{ address: 'secondary:53' }, { address: '192.0.2.1:53' }] },
  };
  assert.deepEqual(
    problems(t, JSON.stringify(mapServer), CONFIG)
      .map(({ key }) => key)
      .sort(),
    ['lisp.listen.0', 'listen', 'metricsListen', 'reflectorListen.0', 'zone.listen.0', 'zone.notify.0.address'],
  );
  const right = { listen: ['0.0.0.0:4342', '[::]:4342'], metricsListen: '', reflectorListen: [] };
  assert.deepEqual(problems(t, JSON.stringify(right), CONFIG), []);
});

test('a right file has no problems', (t) => {
  assert.deepEqual(problems(t, '{"mtu": 1400}'), []);
});

test('each value of any JSON has its line', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue(), { maxKeys: 5 }), (value) => {
      const text = JSON.stringify(value, null, 2);
      const rows = text.split('\n');
      const lines = linesOfValues(text);
      for (const key of Object.keys(JSON.parse(text) as object)) {
        if (key.includes('.')) continue;
        const line = lines.get(key);
        assert.ok(line !== undefined && rows[line - 1]?.startsWith(`  ${JSON.stringify(key)}:`), key);
      }
    }),
  );
});
