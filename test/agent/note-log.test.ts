import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import type { Note } from '../../agent/core/output.ts';
import { logNote } from '../../agent/shell/note-log.ts';
import { parseTunnelKey } from '../../proto/identity.ts';

test('what others can cause often is said at debug, each in its own words', () => {
  const lines: Record<string, unknown>[] = [];
  const log = pino({ level: 'debug', base: null, timestamp: false }, { write: (line) => lines.push(JSON.parse(line)) });
  const publicKey = parseTunnelKey(Buffer.alloc(32, 4).toString('base64'));
  const notes: readonly Note[] = [
    { type: 'resolution', result: 'found' },
    { type: 'push', records: 3 },
    { type: 'lisp', result: 'malformed' },
    { type: 'rloc-probe', result: 'unanswered' },
    { type: 'peer-refused', publicKey },
  ];
  for (const note of notes) logNote(log, note);
  assert.deepEqual(lines, [
    { level: 20, result: 'found', msg: 'a question to the map server ended' },
    { level: 20, count: 3, msg: 'the map server pushed changes' },
    { level: 20, result: 'malformed', msg: 'message of a LISP router' },
    { level: 20, result: 'unanswered', msg: 'RLOC-probe ended' },
    { level: 20, publicKey, msg: 'packets of an agent that may not send them' },
  ]);
});
