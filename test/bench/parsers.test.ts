/** What is read of the output of other programs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BenchError } from '../../bench/bench-error.ts';
import { udpResult } from '../../bench/blaster.ts';
import { parseIperf } from '../../bench/iperf.ts';
import { parseCpuSeconds } from '../../bench/link.ts';
import { parseBusyTicks } from '../../bench/machine.ts';
import { parsePing } from '../../bench/ping.ts';
import { parsePerfReport } from '../../bench/profile.ts';
import { newKeyPair } from '../../bench/systems/wireguard.ts';

test('of iperf3 the receiver’s speed and bytes count, and the sender’s retransmits', () => {
  const end = { sum_sent: { retransmits: 3 }, sum_received: { bits_per_second: 8.5e9, bytes: 5_312_500_000 } };
  assert.deepEqual(parseIperf(JSON.stringify({ end })), { gbps: 8.5, bytes: 5_312_500_000, retransmits: 3 });
});

test('an error of iperf3 is passed on, and a report without bytes is one', () => {
  assert.throws(() => parseIperf('{"error":"unable to connect"}'), /iperf3: unable to connect/);
  assert.throws(() => parseIperf('{"end":{"sum_received":{"bits_per_second":0,"bytes":0}}}'), BenchError);
  assert.throws(() => parseIperf(''), /printed no JSON: nothing/);
});

test('nothing but a BenchError leaves the reader of iperf3, whatever it is given', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.json().filter((text) => text.startsWith('{')),
      ),
      (text) => {
        try {
          parseIperf(text);
        } catch (error) {
          assert.ok(error instanceof BenchError, String(error));
        }
      },
    ),
  );
});

test('ping: median and 99th percentile in microseconds, and what was lost', () => {
  const lines = [0.1, 0.2, 0.3, 4].map(
    (time, i) => `64 bytes from 10.77.0.2: icmp_seq=${i + 1} ttl=64 time=${time} ms`,
  );
  assert.deepEqual(parsePing(lines.join('\n'), 5), { medianUs: 250, p99Us: 4000, lost: 1 });
  assert.throws(() => parsePing('5 packets transmitted, 0 received, 100% packet loss, time 4004ms', 5), BenchError);
});

test('UDP is counted over at least the time of sending', () => {
  const sender = { sent: 1_000_000, seconds: 2 };
  assert.deepEqual(udpResult(sender, { received: 400_000, disordered: 2, seconds: 0.5 }), {
    delivered: 400_000,
    sentKpps: 500,
    deliveredKpps: 200,
    disordered: 2,
  });
  assert.equal(udpResult(sender, { received: 400_000, disordered: 0, seconds: 4 }).deliveredKpps, 100);
  assert.throws(() => udpResult(sender, { received: 0, disordered: 0, seconds: 0 }), BenchError);
});

test('CPU time is user and system time, also of a program with parentheses in its name', () => {
  const rest = 'S 1 1 1 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 8 0 12345 1000000 500';
  assert.equal(parseCpuSeconds(`4711 (a) b (c)) ${rest}\n`), 4);
});

test('idle time and waiting for disks are not busy time, and guests are not counted twice', () => {
  assert.deepEqual(parseBusyTicks('cpu  10 1 20 100 50 2 3 4 7 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n'), {
    busy: 40,
    total: 190,
  });
});

test('perf: share, place and symbol, the kernel by name, comments left out', () => {
  const text = [
    '# Overhead\tShared Object\tSymbol',
    '',
    '    12.50%\tstayput-dataplane  \t[.] aes_gcm_enc_update_vaes_avx512',
    '     8.25%\t[kernel.kallsyms]  \t[k] _copy_from_iter',
  ].join('\n');
  assert.deepEqual(parsePerfReport(text), [
    { percent: 12.5, where: 'stayput-dataplane', symbol: 'aes_gcm_enc_update_vaes_avx512' },
    { percent: 8.25, where: 'kernel', symbol: '_copy_from_iter' },
  ]);
});

test('WireGuard keys are 32 bytes in hexadecimal', () => {
  const { private: secret, public: open } = newKeyPair();
  for (const key of [secret, open]) assert.match(key, /^[0-9a-f]{64}$/);
  assert.notEqual(secret, open);
});
