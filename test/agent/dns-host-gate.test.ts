import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONTENTION_WINDOW, HostGate, MAX_OVERWRITTEN, PATIENCE, YIELD_TIME } from '../../agent/core/dns-host-gate.ts';
import { parseIpPrefix } from '../../proto/address.ts';
import { reverseZones } from '../../proto/dns/reverse-zones.ts';

test('the host asks the agent as long as that answers, and others soon after', () => {
  const gate = new HostGate();
  assert.deepEqual(gate.verdict(0), { host: 'asks-others', because: 'not-answering' });
  gate.handleProbe(false, 10);
  assert.equal(gate.verdict(10).host, 'asks-others');
  gate.handleProbe(true, 20);
  assert.equal(gate.verdict(20).host, 'asks-agent');
  gate.handleProbe(false, 1000);
  assert.equal(gate.verdict(20 + PATIENCE).host, 'asks-agent', 'a restart of the agent is no reason');
  assert.deepEqual(gate.verdict(21 + PATIENCE), { host: 'asks-others', because: 'not-answering' });
  gate.handleProbe(true, 9000);
  assert.equal(gate.verdict(9000).host, 'asks-agent');
});

test('leases that come are written over, a program that insists gets its way for a while', () => {
  const gate = new HostGate();
  let now = 0;
  const overwritten = (times: number, apart: number): void => {
    for (let i = 0; i < times; i++) {
      now += apart;
      gate.handleOverwritten(now);
    }
    gate.handleProbe(true, now);
  };
  overwritten(100, CONTENTION_WINDOW / MAX_OVERWRITTEN);
  assert.equal(gate.verdict(now).host, 'asks-agent');
  overwritten(MAX_OVERWRITTEN + 1, 10);
  assert.deepEqual(gate.verdict(now), { host: 'asks-others', because: 'overwritten' });
  gate.handleProbe(true, now + YIELD_TIME);
  assert.equal(gate.verdict(now + YIELD_TIME).host, 'asks-agent', 'and is tried again');
});

test('the reverse zones of a prefix are cut at whole octets and nibbles', () => {
  const zones = (text: string): string[] => reverseZones(parseIpPrefix(text));
  assert.deepEqual(zones('10.77.0.0/16'), ['77.10.in-addr.arpa']);
  assert.deepEqual(zones('10.80.4.0/22'), [
    '4.80.10.in-addr.arpa',
    '5.80.10.in-addr.arpa',
    '6.80.10.in-addr.arpa',
    '7.80.10.in-addr.arpa',
  ]);
  assert.deepEqual(zones('10.77.0.5/32'), ['5.0.77.10.in-addr.arpa']);
  assert.equal(zones('10.128.0.0/9').length, 128);
  assert.deepEqual(zones('fd77::/32'), ['0.0.0.0.7.7.d.f.ip6.arpa']);
  assert.deepEqual(zones('fd40::/10'), ['4.d.f.ip6.arpa', '5.d.f.ip6.arpa', '6.d.f.ip6.arpa', '7.d.f.ip6.arpa']);
  assert.deepEqual(zones('0.0.0.0/0'), ['in-addr.arpa']);
});
