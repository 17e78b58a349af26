/** Who belongs to the overlay: joining with tokens, grants that come and go, and revocation. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CLOSE } from '../../mapserver/core/actions.ts';
import type { IpPrefix } from '../../proto/address.ts';
import { eidKey } from '../../proto/eid.ts';
import { mappingsOf } from '../../proto/lisp/native.ts';
import { isRevocation, type Mapping } from '../../proto/mapping.ts';
import { minutes } from '../../proto/time.ts';
import { CERTIFICATE, type CoreAgent, CoreWorld, prefixOf, stored } from './core-world.ts';

const EID = '10.77.0.5';
const GRANT = { eids: ['10.77.0.5/32'], names: ['db'] };

describe('revoking', () => {
  test('an agent that is revoked is cut off, its EIDs are withdrawn, and others can take them', () => {
    const world = new CoreWorld();
    const [agent, heir] = [world.agent('a', GRANT), world.agent('b', GRANT)];
    const client = world.agent('c');
    agent.register(agent.mapping('agent'), agent.mapping(EID));
    client.subscribe(EID);
    assert.ok(world.operate({ kind: 'revoke-agent', xtrId: agent.xtrId }).ok);
    assert.equal(agent.closed, CLOSE.revoked);
    assert.deepEqual(
      client.pushed().map(({ eid, ttl }) => [eidKey(eid), ttl]),
      [
        ['[0]10.77.0.5/32', 0],
        [eidKey(agent.mapping('agent').eid), 0],
        // By key.
        [eidKey(agent.mapping('agent').eid), 0],
      ],
    );
    assert.equal(world.core.admits(agent.xtrId, null), 'revoked');
    assert.equal(world.core.state.statistics().sessions, 2);
    agent.connect();
    assert.equal(agent.closed, CLOSE.revoked);
    assert.equal(heir.claim(EID)[0]?.generation, 2);
  });
});

describe('the news of a revocation', () => {
  test('goes to everybody who is connected, by key, behind the withdrawals', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', GRANT);
    const [subscriber, stranger] = [world.agent('b'), world.agent('c')];
    agent.register(agent.mapping('agent'), agent.mapping(EID));
    subscriber.subscribe(EID);
    world.operate({ kind: 'revoke-agent', xtrId: agent.xtrId });
    const news = stranger.pushed();
    assert.equal(news.length, 1);
    assert.ok(isRevocation(news[0]!));
    assert.equal(news[0]?.tunnelKey, agent.tunnelKey);
    assert.equal(news[0]?.owner, agent.xtrId);
    assert.ok(isRevocation(subscriber.pushed().at(-1)!));
  });

  test('goes to whoever asks for its agent address later, also after a restart', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', GRANT);
    agent.register(agent.mapping('agent'), agent.mapping(EID));
    world.operate({ kind: 'revoke-agent', xtrId: agent.xtrId });
    const later = world.restarted();
    const late = later.agent('late');
    const address = eidKey(agent.mapping('agent').eid).replace('[0]', '');
    const [answer] = mappingsOf(late.subscribe(address)!);
    assert.ok(isRevocation(answer!));
    const [nothing] = mappingsOf(late.subscribe(EID)!);
    assert.equal(isRevocation(nothing!), false);
  });
});

describe('joining', () => {
  const enrol = (agent: { tunnelKey: Mapping['tunnelKey'] }, token: string, certificateKey = 'k') => ({
    kind: 'enrol' as const,
    secretHash: token,
    tunnelKey: agent.tunnelKey!,
    certificateKey,
    certificate: CERTIFICATE,
    software: '',
    eids: [],
    names: [],
  });
  const token = (secretHash: string, fields: object = {}) => ({
    kind: 'create-token' as const,
    authority: 'ca',
    secretHash,
    eids: [prefixOf(EID)],
    names: ['*.web'],
    groups: [],
    pools: [],
    uses: 1,
    ttl: minutes(10),
    ...fields,
  });
  const codeOf = (result: ReturnType<CoreWorld['operate']>): string => (result.ok ? 'ok' : result.error.code);

  // Attack: a single-use token in two enrolments, before either is on disk | 2 | one is enrolled, the other told that
  // it is spent
  test('attack: one join token used by two at once', () => {
    const world = new CoreWorld();
    const [a, b] = [world.enrolled('a'), world.enrolled('b')];
    world.operate(token('11'.repeat(32)));
    const fresh = [{ tunnelKey: keyOf(a, 1) }, { tunnelKey: keyOf(b, 2) }] as const;
    world.durable = false;
    const ids = fresh.map((agent) => world.core.handleOperation(enrol(agent, '11'.repeat(32)), world.now));
    const outcomes: string[] = [];
    world.release();
    world.release();
    for (const event of world.events)
      if (event.kind === 'operation' && event.operation === 'enrol') outcomes.push(event.result);
    assert.deepEqual(outcomes.slice(-2).sort(), ['STAYPUT_TOKEN_SPENT', 'ok']);
    assert.equal(ids.length, 2);
  });

  // Attack: the enrolment of a tunnel key again with another TLS key, and with another token | 2 | refused as already
  // enrolled
  test('attack: an enrolment repeated with another key', () => {
    const world = new CoreWorld();
    const agent = { tunnelKey: keyOf(world.enrolled('a'), 1) };
    const secret = '22'.repeat(32);
    world.operate(token(secret));
    assert.equal(codeOf(world.operate(enrol(agent, secret))), 'ok');
    assert.equal(codeOf(world.operate(enrol(agent, secret))), 'ok');
    assert.equal(codeOf(world.operate(enrol(agent, secret, 'other'))), 'STAYPUT_ALREADY_ENROLLED');
    world.operate(token('23'.repeat(32)));
    assert.equal(codeOf(world.operate(enrol(agent, '23'.repeat(32)))), 'STAYPUT_ALREADY_ENROLLED');
  });

  // Attack: enrolments with tokens that are unknown, share their start with a known one, are revoked or expired, and
  // wishes beyond the token | 6 | each refused with its reason
  test('attack: join tokens that are unknown, expired or revoked', () => {
    const world = new CoreWorld();
    const agent = { tunnelKey: keyOf(world.enrolled('a'), 1) };
    const secret = '33'.repeat(32);
    assert.equal(codeOf(world.operate(enrol(agent, secret))), 'STAYPUT_TOKEN_UNKNOWN');
    world.operate(token(secret));
    const sameStart = `${secret.slice(0, 12)}${'44'.repeat(26)}`;
    assert.equal(codeOf(world.operate(enrol(agent, sameStart))), 'STAYPUT_TOKEN_UNKNOWN');
    const wish = (fields: object) => codeOf(world.operate({ ...enrol(agent, secret), ...fields }));
    assert.equal(wish({ eids: [prefixOf('10.77.0.6')] }), 'STAYPUT_NOT_GRANTED');
    assert.equal(wish({ names: ['web'] }), 'STAYPUT_NOT_GRANTED');
    world.operate({ kind: 'revoke-token', id: secret.slice(0, 12) });
    assert.equal(wish({}), 'STAYPUT_TOKEN_REVOKED');
    world.operate(token('55'.repeat(32)));
    world.advance(minutes(11));
    assert.equal(codeOf(world.operate(enrol(agent, '55'.repeat(32)))), 'STAYPUT_TOKEN_EXPIRED');
  });

  // Attack: a token that grants an address outside of the overlay | 1 | not made
  test('attack: a token for what is outside of the overlay', () => {
    const world = new CoreWorld();
    assert.equal(
      codeOf(world.operate(token('66'.repeat(32), { eids: [prefixOf('192.0.2.1')] }))),
      'STAYPUT_OUTSIDE_OVERLAY',
    );
  });

  test('no grant makes an EID of what platforms and agents have for themselves', () => {
    const prefixes = ['100.64.0.0/10', 'fd00::/8'] as IpPrefix[];
    const world = new CoreWorld({ prefixes });
    const agent = world.agent('a', { eids: prefixes });
    const other = world.agent('b').mapping('agent').eid;
    assert.ok(other.kind === 'prefix');
    for (const eid of ['100.100.100.200', '100.100.100.0/24', 'fd00:ec2::254', other.prefix])
      assert.equal(agent.claim(eid)[0]?.action, 'policy-denied', eid);
    assert.equal(agent.claim('100.100.100.201')[0]?.action, 'no-action');
    assert.equal(codeOf(world.operate(token('77'.repeat(32), { eids: [prefixes[0]!] }))), 'ok');
    for (const eid of ['100.100.100.200/32', 'fd00:ec2::254/128', 'fd53:7461:7970:7574::/64'] as IpPrefix[])
      assert.equal(codeOf(world.operate(token('88'.repeat(32), { eids: [eid] }))), 'STAYPUT_OUTSIDE_OVERLAY');
  });

  test('a grant that is added later holds at once', () => {
    const world = new CoreWorld();
    const agent = world.agent('a');
    assert.equal(agent.claim(EID)[0]?.action, 'policy-denied');
    world.operate({ kind: 'add-grant', xtrId: agent.xtrId, eids: [prefixOf(EID)], names: [], groups: [] });
    assert.equal(agent.claim(EID)[0]?.generation, 1);
  });

  test('a grant that is taken away releases what it alone covered, and nothing else', () => {
    const world = new CoreWorld();
    const agent = world.agent('a', { eids: [prefixOf(EID), '10.77.1.0/24'], names: ['db'], groups: ['web'] });
    const follower = world.agent('b', GRANT);
    agent.register(agent.mapping('agent'), agent.mapping(EID), agent.mapping('10.77.1.1'), agent.mapping('db'));
    follower.subscribe(EID);
    follower.pushed();
    const { xtrId } = agent;
    const less = { kind: 'remove-grant' as const, xtrId, eids: [prefixOf(EID)], names: ['db'], groups: ['web'] };
    const result = world.operate(less);
    assert.ok(result.ok && result.record.kind === 'agent');
    assert.deepEqual(result.record.groups, []);
    assert.equal(stored(world, EID)?.state, 'released');
    assert.equal(stored(world, 'db')?.state, 'released');
    assert.equal(stored(world, '10.77.1.1')?.state, 'live');
    assert.equal(world.core.state.agentState(xtrId).mappings, 2, 'with the agent address');
    assert.equal(follower.pushed()[0]?.ttl, 0, 'the follower is told of the withdrawal');
    assert.equal(agent.claim(EID)[0]?.action, 'policy-denied');
    assert.equal(codeOf(world.operate(less)), 'STAYPUT_NOT_GRANTED', 'it cannot be taken away twice');
  });
});

/** Another tunnel key, made from an agent's. */
function keyOf(agent: CoreAgent, salt: number) {
  const bytes = Buffer.from(agent.tunnelKey, 'base64');
  bytes[0] = ((bytes[0] ?? 0) + salt) & 0xff;
  return bytes.toString('base64') as typeof agent.tunnelKey;
}
