import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { UsageError } from '../../proto/errors.ts';
import { formatHostPort, parseHostPort } from '../../runtime/host-port.ts';

test('a host and a port are read as IPv4, IPv6 in brackets, or a name', () => {
  assert.deepEqual(parseHostPort('127.0.0.1:53'), { host: '127.0.0.1', port: 53 });
  assert.deepEqual(parseHostPort('[::1]:53'), { host: '::1', port: 53 });
  assert.deepEqual(parseHostPort('map.example.org:4342'), { host: 'map.example.org', port: 4342 });
});

test('what is not HOST:PORT is refused and quoted', () => {
  for (const text of [
    '',
    '53',
    'host',
    'host:',
    ':53',
    '::1:53',
    'host:65536',
    'host:-1',
    'a b:1',
    '[::1]',
    '[::1]53',
    'host:1x',
    '999.1.1.1:53',
    '10.0.1:53',
    '[1:2]:53',
  ]) {
    assert.throws(
      () => parseHostPort(text),
      (error) => error instanceof UsageError && error.message.includes(`"${text}"`),
    );
  }
});

test('what is formatted is read back', () => {
  const host = fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain());
  fc.assert(
    fc.property(host, fc.integer({ min: 0, max: 65535 }), (name, port) => {
      assert.deepEqual(parseHostPort(formatHostPort(name, port)), { host: name, port });
    }),
  );
});

test('any text gives an answer or a usage error', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      try {
        parseHostPort(text);
      } catch (error) {
        assert.ok(error instanceof UsageError);
      }
    }),
  );
});
