/** What an agent does with EIDs of sites that have no tunnel key. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { DataplaneTable } from '../../agent/core/dataplane-table.ts';
import { RemoteMappings } from '../../agent/core/remote-mappings.ts';
import { parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import type { DataplaneCommand, PlainRules } from '../../proto/dataplane/messages.ts';
import { type InstanceId, prefixEid } from '../../proto/eid.ts';
import { agentAddressOf, siteXtrIdOf, xtrIdOf } from '../../proto/identity.ts';
import type { Generation, Mapping, TunnelKey } from '../../proto/mapping.ts';
import { minutes } from '../../proto/time.ts';
import { World } from './world.ts';

const INSTANCE = 7 as InstanceId;
const KEY = Buffer.alloc(32, 1).toString('base64') as TunnelKey;
const OVERLAY = [parseIpPrefix('10.77.0.0/16')];
const SITE = parseIpPrefix('10.77.50.0/24');
const RULES: PlainRules = {
  instance: INSTANCE,
  gateway: false,
  sites: [{ rlocs: [parseIpPrefix('192.0.2.0/24')], eids: [] }],
};
const LOCATOR = { address: parseIpAddress('192.0.2.7'), port: 4341, priority: 1, weight: 100 };

function siteMapping(changes: Partial<Mapping> = {}): Mapping {
  return {
    eid: prefixEid(INSTANCE, SITE),
    ttl: minutes(3),
    action: 'no-action',
    generation: 1 as Generation,
    owner: siteXtrIdOf('paris'),
    locators: [LOCATOR],
    names: [],
    targets: [],
    ...changes,
  };
}

function agent(rules: PlainRules | null, knowsPlain = true) {
  const commands: DataplaneCommand[] = [];
  const table = new DataplaneTable((command) => commands.push(command), rules);
  const identity = { xtrId: xtrIdOf(KEY), tunnelKey: KEY, agentAddress: agentAddressOf(KEY), instance: INSTANCE };
  const remote = new RemoteMappings(
    identity as ConstructorParameters<typeof RemoteMappings>[0],
    table,
    16,
    () => OVERLAY,
    () => undefined,
    0,
  );
  table.attach({ enforces: true, knowsPlain }, 0);
  const mapped = () => commands.filter((command) => command.type === 'mapping-set').at(-1);
  return { commands, table, remote, mapped };
}

describe('an agent and sites of LISP routers', () => {
  test('sends to them plainly where the operator allows it', () => {
    const { commands, remote, mapped } = agent(RULES);
    assert.deepEqual(
      commands.find((command) => command.type === 'plain-set'),
      { type: 'plain-set', ...RULES },
    );
    remote.apply(siteMapping(), prefixEid(INSTANCE, SITE), 0);
    assert.deepEqual(mapped(), {
      type: 'mapping-set',
      prefix: SITE,
      generation: 1,
      action: 'plain',
      locators: [LOCATOR],
    });
  });

  test('sends nothing to them where the operator says nothing, or the data plane is older', () => {
    for (const { mapped, remote } of [agent(null), agent(RULES, false)]) {
      remote.apply(siteMapping(), prefixEid(INSTANCE, SITE), 0);
      assert.deepEqual(mapped(), { type: 'mapping-set', prefix: SITE, generation: 1, action: 'drop' });
    }
  });

  test('drops what a site has withdrawn', () => {
    const { mapped, remote } = agent(RULES);
    remote.apply(siteMapping(), prefixEid(INSTANCE, SITE), 0);
    remote.apply(siteMapping({ ttl: 0, locators: [] }), prefixEid(INSTANCE, SITE), 1);
    assert.equal(mapped()?.type === 'mapping-set' && mapped()?.action, 'drop');
  });

  // Attack: a mapping without a tunnel key for an agent's address | 1 | not believed
  test('attack: a plain mapping of an agent address', () => {
    const { mapped, remote } = agent(RULES);
    const other = Buffer.alloc(32, 2).toString('base64') as TunnelKey;
    const eid = prefixEid(INSTANCE, parseIpPrefix(agentAddressOf(other)));
    remote.apply(siteMapping({ eid }), eid, 0);
    assert.equal(mapped(), undefined);
  });

  test('says all of it again to a data plane that starts anew', () => {
    const { commands, remote, table } = agent(RULES);
    remote.apply(siteMapping(), prefixEid(INSTANCE, SITE), 0);
    const before = commands.length;
    table.detach();
    table.attach({ enforces: true, knowsPlain: true }, 1);
    const types = commands.slice(before).map(({ type }) => type);
    assert.deepEqual(types, ['sync-begin', 'plain-set', 'mapping-set', 'sync-end']);
  });

  test('asks once for each EID that is here who is to be told of a move, in portions', () => {
    const world = new World();
    const eids = Array.from({ length: 150 }, (_, n) => `10.77.1.${n}`);
    const host = world.host('a', { eids, address: '203.0.113.1', lisp: { plain: RULES } });
    host.connect();
    host.attach('10.77.2.1', { interface: 'veth0' });
    world.advance(1000);
    const { log } = host.dataplane ?? assert.fail();
    const asked = () => log.splice(0).flatMap((each) => (each.type === 'correspondents' ? [each.prefix] : []));
    asked();
    host.plug('203.0.113.2');
    const first = asked();
    assert.equal(first.length, 64);
    world.advance(100);
    const all = [...first, ...asked()];
    assert.deepEqual(all.sort(), eids.map((eid) => parseIpPrefix(eid)).sort(), 'none twice, and none that is not here');
  });
});
