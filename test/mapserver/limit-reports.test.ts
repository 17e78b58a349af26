import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LimitReports } from '../../mapserver/shell/limit-reports.ts';

test('a limit is counted each time, and logged once for each source, then with a count', () => {
  const lines: object[] = [];
  let hits = 0;
  const reports = new LimitReports({ limitHit: () => hits++ }, { warn: (line: object) => lines.push(line) } as never);
  for (let i = 0; i < 1000; i++) reports.hit('connections', '192.0.2.1');
  reports.hit('connections', '192.0.2.2');
  const first = { what: 'connections', source: '192.0.2.1', count: 1 };
  assert.deepEqual(lines, [first, { ...first, source: '192.0.2.2' }]);
  reports.summarise();
  assert.deepEqual(lines.splice(0).slice(2), [{ ...first, count: 999 }]);
  reports.summarise();
  assert.deepEqual(lines, [], 'nothing new, nothing said');
  reports.hit('connections', '192.0.2.1');
  assert.deepEqual(lines, [first]);
  assert.equal(hits, 1002);
  reports.close();
});

test('a flood from ever new sources fills neither the memory nor the log', () => {
  let lines = 0;
  const reports = new LimitReports({ limitHit: () => {} }, { warn: () => lines++ } as never);
  for (let i = 0; i < 100_000; i++) reports.hit('connections', `source ${i}`);
  assert.equal(lines, 1000);
  reports.close();
});
