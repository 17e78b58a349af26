import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { z } from 'zod';
import { UsageError } from '../../proto/errors.ts';
import { loadConfig, nearest } from '../../runtime/config-file.ts';
import { temporaryFolder } from './temporary-folder.ts';

const SCHEMA = z.strictObject({
  listen: z.string().default('0.0.0.0:4342'),
  logLevel: z.enum(['info', 'debug']).default('info'),
  dns: z.strictObject({ zone: z.string().default('stayput.internal') }).prefault({}),
});

test('defaults fill what the file leaves out, and flags win over the file', (t) => {
  const path = file(t, '{"$schema": "x", "listen": "127.0.0.1:1"}');
  assert.deepEqual(loadConfig(SCHEMA, path, { required: true }), {
    listen: '127.0.0.1:1',
    logLevel: 'info',
    dns: { zone: 'stayput.internal' },
  });
  const overrides = { listen: '127.0.0.1:2', logLevel: undefined };
  assert.equal(loadConfig(SCHEMA, path, { required: true, overrides }).listen, '127.0.0.1:2');
});

test('a missing file is an error only when it was asked for', (t) => {
  const path = join(temporaryFolder(t), 'none.json');
  assert.equal(loadConfig(SCHEMA, path, { required: false }).listen, '0.0.0.0:4342');
  refused(path, /none\.json: cannot be read/);
});

test('an unknown key is an error that names the nearest known one', (t) => {
  refused(file(t, '{"lisen": "x"}'), /unknown key "lisen"; did you mean "listen"\?$/);
  refused(file(t, '{"completelyDifferent": 1}'), /unknown key "completelyDifferent"$/);
});

test('an unknown key inside a section is named with its section and its nearest neighbour', (t) => {
  refused(file(t, '{"dns": {"zoen": "x"}}'), /unknown key "dns\.zoen"; did you mean "dns\.zone"\?$/);
});

test('a wrong value is named with its key', (t) => {
  refused(file(t, '{"listen": 5}'), /config\.json: listen: /);
  refused(file(t, '{"dns": {"zone": 5}}'), /config\.json: dns\.zone: /);
});

test('every message is one line, whatever the file holds', (t) => {
  for (const text of ['', '{', '[]', 'null', '5', '{"a":\n1,}', '{"listen": null}', '\0', '{"a\\nb": 1}']) {
    refused(file(t, text), /^[^\n]*$/);
  }
});

test('nearest suggests only what is near', () => {
  assert.equal(nearest('logLevle', ['listen', 'logLevel']), 'logLevel');
  assert.equal(nearest('LOGLEVEL', ['listen', 'logLevel']), 'logLevel');
  assert.equal(nearest('x', ['listen', 'logLevel']), undefined);
  assert.equal(nearest('anything', []), undefined);
});

function file(t: TestContext, text: string): string {
  const path = join(temporaryFolder(t), 'config.json');
  writeFileSync(path, text);
  return path;
}

function refused(path: string, message: RegExp): void {
  assert.throws(
    () => loadConfig(SCHEMA, path, { required: true }),
    (error) => {
      assert.ok(error instanceof UsageError);
      assert.match(error.message, message);
      assert.ok(error.message.startsWith(path));
      return true;
    },
  );
}
