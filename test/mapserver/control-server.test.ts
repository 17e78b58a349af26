import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { TestOverlay } from './overlay.ts';

const overlay = new TestOverlay();
before(() => overlay.start());
after(() => overlay.remove());

test('an EID that moves is pushed to its subscriber and to its previous owner', async () => {
  const grant = { eids: ['10.77.0.5/32'], names: ['db'] };
  const first = await overlay.agent(grant);
  const second = await overlay.agent(grant);
  const client = await overlay.agent({ eids: ['10.77.0.9/32'] });
  const negative = await client.subscribe('10.77.0.5');
  assert.equal(negative.type, 'map-reply');
  const [agentMapping, mapping] = await first.register(first.mapping('agent'), first.mapping('10.77.0.5'));
  assert.equal(agentMapping?.generation, 1);
  assert.equal(mapping?.generation, 1);
  assert.equal((await client.push())[0]?.owner, first.xtrId);
  await second.register(second.mapping('agent'));
  const [taken, previous] = await second.register(second.mapping('10.77.0.5'));
  assert.equal(taken?.generation, 2);
  assert.equal(previous?.tunnelKey, first.keys.tunnelKey);
  for (const informed of [first, client]) {
    const [pushed, companion] = await informed.push();
    assert.equal(pushed?.owner, second.xtrId);
    assert.equal(pushed?.generation, 2);
    assert.equal(companion?.tunnelKey, second.keys.tunnelKey);
  }
});
