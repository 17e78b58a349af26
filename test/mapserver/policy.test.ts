/** The policy as agents get it from a map server. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type IpAddress, parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { NO_RECORDS } from '../../proto/dns/record-sets.ts';
import { type AgentPolicy, formatPolicyVersion, NO_POLICY, STAND_IN_VERSION, verdictOf } from '../../proto/policy.ts';
import { type CoreAgent, CoreWorld } from './core-world.ts';

const WEB = '10.77.1.1';
const DB = '10.77.2.1';
const TEXT = 'default deny\ngroup ops\nallow from *.web to db tcp 5432\nallow from @ops to any tcp 22';

describe('what agents are sent', () => {
  test('without a policy an agent is told so, once in each session', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', { eids: ['10.77.1.0/24'] });
    agent.claim(WEB);
    assert.deepEqual(agent.policies, [NO_POLICY]);
    agent.connect();
    assert.deepEqual(agent.policies, [NO_POLICY, NO_POLICY]);
  });

  test('a policy reaches every agent with the commit that makes it hold, and not before', () => {
    const { world, web, db, other } = overlay();
    world.durable = false;
    world.core.handleOperation({ kind: 'set-policy', text: TEXT, ifVersion: 0 }, world.now);
    world.advance(0);
    assert.equal(latest(web).version, 0);
    world.durable = true;
    world.release();
    assert.equal(formatPolicyVersion(latest(web).version), '1.0');
    assert.equal(allows(latest(web), WEB, DB, 5432), true);
    assert.equal(allows(latest(db), WEB, DB, 5432), true);
    assert.equal(allows(latest(db), WEB, DB, 22), false);
    assert.deepEqual([latest(other).default, latest(other).rules], ['deny', []], 'no rule concerns it');
  });

  test('an agent that connects gets what holds, also from a map server that was started again', () => {
    const { world, web } = overlay();
    apply(world, TEXT);
    web.disconnect();
    const restarted = world.restarted();
    web.policies.length = 0;
    web.connect();
    assert.deepEqual(
      web.policies.map((policy) => allows(policy, WEB, DB, 5432)),
      [true],
    );
    assert.equal(restarted.core.state.policyInForce()?.record.text, TEXT);
  });

  test('a name that is registered, moved or given up changes the rules at once, where it concerns anybody', () => {
    const { world, web, db, other } = overlay();
    apply(world, TEXT);
    const before = other.policies.length;
    web.claim('10.77.1.2');
    web.register(web.mapping('two.web', { targets: [parseIpAddress('10.77.1.2')] }));
    world.advance(COOLING);
    assert.equal(allows(latest(db), '10.77.1.2', DB, 5432), true);
    assert.equal(allows(latest(web), '10.77.1.2', DB, 5432), true);
    assert.equal(formatPolicyVersion(latest(db).version), '1.1');
    web.claim('two.web', 1, { ttl: 0 });
    world.advance(COOLING);
    assert.equal(allows(latest(db), '10.77.1.2', DB, 5432), false);
    assert.equal(formatPolicyVersion(latest(db).version), '1.2');
    assert.equal(other.policies.length, before, 'nobody else is troubled');
  });

  test('a name of several agents means the EIDs of all of them, whoever registered it last', () => {
    const { world, web, db } = overlay();
    const second = world.agent('second', { eids: ['10.77.5.0/24'], names: ['*.web'] });
    apply(world, TEXT);
    const eids = [WEB, '10.77.5.1'] as const;
    for (const [i, agent] of [web, second].entries()) {
      const eid = eids[i] as string;
      agent.claim(eid, i === 0 ? 1 : 0, { names: ['one.web'] });
      agent.claim('one.web', 0, { targets: [parseIpAddress(eid)] });
    }
    const allowed = (): boolean[] => {
      world.advance(LONG_COOLING);
      return eids.map((eid) => allows(latest(db), eid, DB, 5432));
    };
    assert.deepEqual(allowed(), [true, true]);
    const asked = { from: { kind: 'name', name: 'one.web' }, to: { kind: 'name', name: 'db' } } as const;
    const explained = world.core.state.explainPolicy({ ...asked, protocol: 6, port: 5432 });
    assert.deepEqual([explained?.action, explained?.from.addresses], ['allow', eids]);
    second.claim('one.web', 2, { ttl: 0 });
    second.claim(eids[1], 1, { names: [] });
    assert.deepEqual(allowed(), [true, false], 'its EID has it no more');
    second.claim(eids[1], 1, { names: ['one.web', 'two.web'] });
    assert.deepEqual(allowed(), [true, true]);
    const grant = { eids: [], names: ['*.web'], groups: [] } as const;
    world.operate({ kind: 'remove-grant', xtrId: second.xtrId, ...grant });
    assert.deepEqual(allowed(), [true, false], 'it may have it no more');
  });

  test('a group by grant follows the grant and the owner', () => {
    const { world, web, db, other } = overlay();
    apply(world, TEXT);
    other.claim('10.77.3.1');
    const groups = ['ops'];
    world.operate({ kind: 'add-grant', xtrId: other.xtrId, eids: [], names: [], groups });
    world.advance(COOLING);
    for (const agent of [web, db, other]) {
      assert.equal(allows(latest(agent), '10.77.3.1', agent === web ? WEB : DB, 22), true);
    }
    world.operate({ kind: 'remove-grant', xtrId: other.xtrId, eids: [], names: [], groups });
    world.advance(COOLING);
    for (const agent of [web, db, other]) assert.equal(allows(latest(agent), '10.77.3.1', DB, 22), false);
  });

  test('the rules of an EID are there before it moves', () => {
    const { world } = overlay();
    const spare = world.agent('spare', { eids: ['10.77.2.0/24'] });
    apply(world, TEXT);
    assert.equal(allows(latest(spare), WEB, DB, 5432), true);
    const before = spare.policies.length;
    spare.claim(DB);
    world.advance(COOLING);
    assert.equal(spare.policies.length, before, 'and nothing about them changes by the move');
  });

  test('a grant that is extended brings the rules of what is granted', () => {
    const { world, other } = overlay();
    apply(world, TEXT);
    assert.equal(allows(latest(other), WEB, DB, 5432), false);
    world.operate({ kind: 'add-grant', xtrId: other.xtrId, eids: [parseIpPrefix(DB)], names: [], groups: [] });
    world.advance(COOLING);
    assert.equal(allows(latest(other), WEB, DB, 5432), true);
  });

  test('a storm of registrations is told in few steps, the last of which has it all', () => {
    const { world, web, db } = overlay({ mappingsPerAgent: 2_000, mappings: 10_000 });
    apply(world, TEXT);
    const before = db.policies.length;
    for (let i = 0; i < 200; i++) {
      web.register(web.mapping(`s${i}.web`, { targets: [parseIpAddress(`10.77.1.${i}`)] }));
      world.advance(1);
    }
    world.advance(COOLING);
    assert.ok(db.policies.length - before <= 4, `${db.policies.length - before} updates within 200 ms`);
    assert.equal(allows(latest(db), '10.77.1.199', DB, 5432), true);
  });

  test('what is sent grows its version within a session, whatever happens', () => {
    const { world, web, db } = overlay();
    apply(world, TEXT);
    apply(world, `${TEXT}\n# the same\n`);
    web.claim('x.web', 0, { targets: [parseIpAddress('10.77.1.9')] });
    world.advance(COOLING);
    world.operate({ kind: 'roll-back-policy', ifVersion: null });
    const versions = db.policies.map(({ version }) => version);
    assert.deepEqual(
      versions,
      [...new Set(versions)].toSorted((a, b) => a - b),
    );
    assert.equal(formatPolicyVersion(versions.at(-1) ?? 0), '3.0');
  });

  test('an agent for which it gets too large keeps what it has, also in a new session', () => {
    const { world, web, db } = overlay({ mappingsPerAgent: 9_000, mappings: 90_000 });
    const services = Array.from({ length: 300 }, (_, i) => `allow from *.web to db tcp ${i}`);
    apply(world, ['default deny', ...services].join('\n'));
    const names = Array.from({ length: 400 }, (_, i) => {
      const targets = ['10.77.1', '10.77.64'].map((net) => parseIpAddress(`${net}.${(2 * i) & 255}`));
      return web.mapping(`n${i}.web`, { targets });
    });
    for (let i = 0; i < 200; i += 20) web.register(...names.slice(i, i + 20));
    world.advance(LONG_COOLING);
    const kept = latest(db);
    const eids = [parseIpPrefix('10.77.64.0/24')];
    world.operate({ kind: 'add-grant', xtrId: web.xtrId, eids, names: [], groups: [] });
    for (let i = 200; i < 400; i += 20) web.register(...names.slice(i, i + 20));
    world.advance(LONG_COOLING);
    assert.deepEqual(latest(db), kept);
    assert.ok(world.count('policy-too-large') > 0);
    db.connect();
    assert.equal(latest(db).version, STAND_IN_VERSION, 'it keeps what it has');
    assert.deepEqual([latest(db).default, latest(db).rules], ['deny', []], 'if it has something');
    for (const { eid } of names) web.claim(eid.kind === 'name' ? eid.name : '', 1, { ttl: 0 });
    world.advance(LONG_COOLING);
    assert.equal(allows(latest(db), WEB, DB, 7), true);
  });
});

describe('who has their way with names and grants', () => {
  const allowed = (world: CoreWorld, agent: CoreAgent, source: string, port: number): boolean => {
    world.advance(COOLING);
    return allows(latest(agent), source, DB, port);
  };

  // Attack: a name of one's own, `x.web`, is registered for an EID of another agent | 1 | the EID is not under the rules for `*.web`
  test('attack: somebody else under the rules of a name', () => {
    const { world, web, db, other } = overlay();
    apply(world, TEXT);
    other.claim('10.77.3.1');
    web.register(web.mapping('x.web', { targets: [parseIpAddress('10.77.3.1'), parseIpAddress('10.77.1.8')] }));
    assert.equal(allowed(world, db, '10.77.3.1', 5432), false);
    assert.equal(allowed(world, db, '10.77.1.8', 5432), true, 'what it was granted counts');
  });

  // Attack: an agent's EID is set at a name of the rules, as a dynamic update can, and an EID carries a name without a
  // grant of it | 2 | neither is under the rules for the name
  test('attack: under the rules of a name that one has no grant of', () => {
    const { world, db, other } = overlay();
    apply(world, TEXT);
    const addresses = [parseIpAddress('10.77.3.1')];
    const change = { name: 'x.web', records: { ...NO_RECORDS, addresses }, ifVersion: null };
    other.claim('10.77.3.1');
    assert.equal(world.operate({ kind: 'change-names', changes: [change] }).ok, true);
    other.claim('10.77.3.2', 0, { names: ['one.web'] });
    world.advance(COOLING);
    assert.equal(allowed(world, db, '10.77.3.1', 5432), false);
    assert.equal(allowed(world, db, '10.77.3.2', 5432), false);
  });

  // Attack: 900 names under `*.web`, each for 32 addresses of its own grant that nobody registered | 28,800 | 1,024 count; the others keep their policy, it can be changed, and a new session gets it
  test('attack: a policy too large for others by the names of one agent', () => {
    const { world, web, db } = overlay({ mappings: 90_000 });
    const rogue = world.agent('rogue', { eids: ['10.77.16.0/20'], names: ['*.web'] });
    const text = ['default deny', ...[1, 2, 3].map((port) => `allow from *.web to db tcp ${port}`)].join('\n');
    apply(world, text);
    for (let i = 0; i < 900; i++) {
      const targets = Array.from({ length: 32 }, (_, j) => addressOf(2 * (i * 2 + j)));
      rogue.register(rogue.mapping(`n${i}.web`, { targets }));
    }
    world.advance(LONG_COOLING);
    assert.equal(world.count('policy-too-large'), 0);
    db.connect();
    assert.equal(allows(latest(db), WEB, DB, 2), true, 'those who were there before are not cut off');
    apply(world, `deny from 10.77.16.0/20 to any\n${text}`);
    assert.equal(allows(latest(db), addressOf(0), DB, 2), false);
    rogue.claim('n0.web', 1, { ttl: 0 });
    web.claim('late.web', 0, { targets: [parseIpAddress('10.77.1.77')] });
    world.advance(LONG_COOLING);
    assert.equal(allows(latest(db), '10.77.1.77', DB, 2), true, 'the names of another agent count');
  });

  // Attack: names `ops` and `db`, and an EID of the database, are claimed without a grant | 3 | refused; no rule changes for anybody
  test('attack: a group or a name claimed without a grant', () => {
    const { world, db, other } = overlay();
    apply(world, TEXT);
    const before = world.agents.map(({ policies }) => policies.length);
    for (const claim of ['ops', 'db', DB]) {
      const targets = claim === DB ? [] : [parseIpAddress('10.77.3.1')];
      assert.equal(other.claim(claim, 0, { targets })[0]?.action, 'policy-denied');
    }
    assert.equal(allowed(world, db, '10.77.3.1', 22), false);
    assert.deepEqual(
      world.agents.map(({ policies }) => policies.length),
      before,
    );
  });

  // Attack: a name `ops` is registered by an agent that was granted that name, but not the group | 1 | it is not in the group
  test('attack: a name like that of a group', () => {
    const { world, db } = overlay();
    const rogue = world.agent('rogue', { eids: ['10.77.4.0/24'], names: ['ops'] });
    apply(world, TEXT);
    rogue.register(rogue.mapping('10.77.4.1'), rogue.mapping('ops', { targets: [parseIpAddress('10.77.4.1')] }));
    assert.equal(allowed(world, db, '10.77.4.1', 22), false);
  });

  // Attack: an agent that is in no rule claims EIDs of others, subscribes to them and connects again | 3 | it is sent no rule
  test('attack: learning rules that are about others', () => {
    const { world, other } = overlay();
    apply(world, TEXT);
    other.claim(WEB);
    other.subscribe(DB);
    world.advance(COOLING);
    other.connect();
    assert.deepEqual(
      other.policies.flatMap(({ rules }) => rules),
      [],
    );
  });

  // Attack: a former owner at an older generation registers an EID of the group again, after it moved away | 1 | it stays out of the group
  test('attack: back into a group by a stale registration', () => {
    const { world, db, other } = overlay();
    const former = world.agent('former', { eids: ['10.77.3.0/24'], groups: ['ops'] });
    apply(world, TEXT);
    former.claim('10.77.3.1');
    assert.equal(allowed(world, db, '10.77.3.1', 22), true);
    other.claim('10.77.3.1');
    assert.equal(allowed(world, db, '10.77.3.1', 22), false);
    former.claim('10.77.3.1', 1);
    assert.equal(allowed(world, db, '10.77.3.1', 22), false);
  });
});

describe('a change of the policy', () => {
  test('is refused when it is not as expected, and names the rule that decides otherwise', () => {
    const { world, db } = overlay();
    apply(world, TEXT);
    const text = `${TEXT}\ndeny from any to db\nexpect deny from ${WEB} to db tcp 5432`;
    const result = world.operate({ kind: 'set-policy', text, ifVersion: null });
    assert.ok(!result.ok);
    assert.equal(result.error.code, 'STAYPUT_POLICY_TEST');
    assert.match(result.error.message, /^line 6: .* it is allowed by line 3 "allow from \*\.web to db tcp 5432"$/);
    assert.equal(formatPolicyVersion(latest(db).version), '1.0');
    assert.equal(world.core.state.policyInForce()?.record.version, 1);
  });

  test('is refused when somebody else was faster', () => {
    const { world } = overlay();
    apply(world, TEXT);
    const result = world.operate({ kind: 'set-policy', text: '', ifVersion: 0 });
    assert.equal(!result.ok && result.error.code, 'STAYPUT_POLICY_CHANGED');
  });

  test('that is no policy is refused with its lines', () => {
    const { world } = overlay();
    const result = world.operate({ kind: 'set-policy', text: 'default deny\nallow all', ifVersion: null });
    assert.equal(!result.ok && result.error.code, 'STAYPUT_POLICY_TEXT');
    assert.match(result.ok ? '' : result.error.message, /^line 2: /);
  });

  test('that is too large for an agent is refused', () => {
    const { world } = overlay();
    const lines = Array.from(
      { length: 1_500 },
      (_, i) => `allow from 10.77.0.0/24 to 10.77.1.${i % 200}, 10.77.2.0/24`,
    );
    const group = `group many = ${Array.from({ length: 600 }, (_, i) => `10.77.${4 + (i >> 7)}.${(2 * i) & 255}`).join(', ')}`;
    const text = [group, ...lines, ...Array.from({ length: 300 }, () => 'allow from @many to 10.77.1.0/24')].join('\n');
    const result = world.operate({ kind: 'set-policy', text, ifVersion: null });
    assert.equal(!result.ok && result.error.code, 'STAYPUT_POLICY_TOO_LARGE');
  });

  test('can be rolled back, and then forward again', () => {
    const { world, db } = overlay();
    assert.equal(codeOf(world, { kind: 'roll-back-policy', ifVersion: null }), 'STAYPUT_NO_POLICY');
    apply(world, TEXT);
    apply(world, 'default deny');
    assert.equal(allows(latest(db), WEB, DB, 5432), false);
    assert.equal(codeOf(world, { kind: 'roll-back-policy', ifVersion: 2 }), 'ok');
    assert.equal(allows(latest(db), WEB, DB, 5432), true);
    assert.equal(codeOf(world, { kind: 'roll-back-policy', ifVersion: null }), 'ok');
    assert.equal(allows(latest(db), WEB, DB, 5432), false);
    assert.equal(world.core.state.policyInForce()?.record.version, 4);
  });

  test('by another map server on the same store is followed', () => {
    const { world, db } = overlay();
    const elsewhere = new CoreWorld({ store: world.store });
    apply(elsewhere, TEXT);
    world.core.handleStoreChanges(elsewhere.store.all(), world.now);
    world.advance(0);
    assert.equal(allows(latest(db), WEB, DB, 5432), true);
  });
});

test('an explanation names addresses, groups and every rule that has a say', () => {
  const { world, web } = overlay();
  apply(world, `group front = *.web\n${TEXT}`);
  const ask = (port: number | null) =>
    world.core.state.explainPolicy({
      from: { kind: 'name', name: 'one.web' },
      to: { kind: 'name', name: 'db' },
      protocol: port === null ? null : 6,
      port,
    });
  const whole = ask(5432);
  assert.deepEqual([whole?.action, whole?.from.addresses, whole?.from.groups], ['allow', [WEB], ['front']]);
  assert.deepEqual(
    whole?.ways[0]?.decisions.map(({ rule }) => rule?.line),
    [4],
  );
  const open = ask(null);
  assert.equal(open?.action, 'depends');
  assert.deepEqual(
    open?.ways[0]?.decisions.map(({ action, rule }) => [action, rule?.line]),
    [
      ['allow', 4],
      ['deny', undefined],
    ],
  );
  web.claim('one.web', 1, { ttl: 0 });
  assert.equal(ask(5432)?.action, 'allow', 'a name without an address is judged as a name');
});

/** An agent with a web server, one with a database, and one with neither; all connected. */
function overlay(limits: object = {}): { world: CoreWorld; web: CoreAgent; db: CoreAgent; other: CoreAgent } {
  const world = new CoreWorld({ limits });
  const web = world.agent('web', { eids: ['10.77.1.0/24'], names: ['*.web'] });
  const db = world.agent('db', { eids: ['10.77.2.0/24'], names: ['db'] });
  const other = world.agent('other', { eids: ['10.77.3.0/24'] });
  web.register(web.mapping(WEB), web.mapping('one.web', { targets: [parseIpAddress(WEB)] }));
  db.register(db.mapping(DB), db.mapping('db', { targets: [parseIpAddress(DB)] }));
  return { world, web, db, other };
}

function apply(world: CoreWorld, text: string): void {
  assert.equal(codeOf(world, { kind: 'set-policy', text, ifVersion: null }), 'ok');
  world.advance(COOLING);
}

function codeOf(world: CoreWorld, operation: Parameters<CoreWorld['operate']>[0]): string {
  const result = world.operate(operation);
  return result.ok ? 'ok' : result.error.code;
}

function latest(agent: CoreAgent): AgentPolicy {
  const policy = agent.policies.at(-1);
  assert.ok(policy, 'the agent was sent a policy');
  return policy;
}

function allows(policy: AgentPolicy, source: string, destination: string, port: number): boolean {
  const opening = { source: parseIpAddress(source), destination: parseIpAddress(destination), protocol: 6, port };
  return verdictOf(policy, opening).action === 'allow';
}

/** More than the time between two updates. */
const COOLING = 150;
/** The same after much work. */
const LONG_COOLING = 1_100;

/** Of 10.77.16.0/20. */
function addressOf(index: number): IpAddress {
  return parseIpAddress(`10.77.${16 + ((index >> 8) & 15)}.${index & 255}`);
}
