/** Every decoder keeps its promises for its corpus and for a bounded number of damaged inputs, the same in each run. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { campaign, corpus } from './campaign.ts';
import { described, isRefusal } from './decoder.ts';
import { DECODERS } from './decoders.ts';

for (const decoder of DECODERS) {
  test(`no input breaks ${decoder.name}`, () => {
    for (const seed of decoder.seeds) {
      const result = decoder.run(seed);
      assert.ok(!isRefusal(result), `${Buffer.from(seed).toString('hex')}: ${described(result)}`);
    }
    const { failure, executions } = campaign(decoder, {
      executions: decoder.slow === true ? 1_000 : EXECUTIONS,
      seed: 1,
    });
    if (failure === undefined) return assert.ok(executions > corpus(decoder).length);
    const { error, input } = failure;
    throw new Error(`${(error as Error).message}; the input in base64: ${Buffer.from(input).toString('base64')}`, {
      cause: error,
    });
  });
}

test('every corpus belongs to a decoder', () => {
  const names = readdirSync(join(PROJECT_ROOT, 'test', 'corpus', 'fuzz')).map((file) => file.replace(/\.txt$/, ''));
  const known = new Set(DECODERS.map(({ name }) => name));
  assert.deepEqual(
    names.filter((name) => !known.has(name)),
    [],
  );
});

const EXECUTIONS = 10_000;
