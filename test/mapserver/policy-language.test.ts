import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PolicyTextError } from '../../mapserver/core/policy/document.ts';
import { MAX_DOCUMENT_RULES, MAX_POLICY_TEXT, parsePolicy } from '../../mapserver/core/policy/language.ts';
import { runs } from '../runs.ts';

test('a policy is read as it is written', () => {
  const document = parsePolicy(EXAMPLE);
  assert.equal(document.default, 'deny');
  assert.deepEqual(document.groups.get('web'), {
    line: 3,
    members: [
      { kind: 'name', pattern: '*.web' },
      { kind: 'prefix', prefix: '10.77.1.0/24' },
      { kind: 'group', group: 'partners' },
    ],
  });
  assert.deepEqual(document.groups.get('partners')?.members, []);
  assert.deepEqual(document.rules, [
    {
      line: 6,
      text: 'allow from @web, 10.77.9.9 to db tcp 5432, 8000-8100',
      action: 'allow',
      from: [
        { kind: 'group', group: 'web' },
        { kind: 'prefix', prefix: '10.77.9.9/32' },
      ],
      to: [{ kind: 'name', pattern: 'db' }],
      protocol: 6,
      ports: [
        [5432, 5432],
        [8000, 8100],
      ],
    },
    {
      line: 8,
      text: 'allow from any to any icmp',
      action: 'allow',
      from: [{ kind: 'any' }],
      to: [{ kind: 'any' }],
      protocol: 1,
      ports: [],
    },
  ]);
  assert.deepEqual(document.expectations, [
    {
      line: 9,
      text: 'expect deny from 10.77.1.1 to db udp 53',
      expected: 'deny',
      from: { kind: 'address', address: '10.77.1.1' },
      to: { kind: 'name', name: 'db' },
      protocol: 17,
      port: 53,
    },
  ]);
});

test('an empty text is a policy that allows everything', () => {
  assert.deepEqual(parsePolicy('# nothing yet\n'), {
    default: 'allow',
    groups: new Map(),
    rules: [],
    expectations: [],
  });
});

test('what is wrong is said with its line, all of it at once', () => {
  assert.deepEqual(
    problemsOf('allow web to db\ndefault maybe\n\ngroup = x\nallow from any to any tcp 99999\npermit from any to any'),
    [
      '1: write "ACTION from WHOM to WHOM [PROTOCOL [PORTS]]"',
      '2: "maybe" is neither "allow" nor "deny"',
      '4: "=" is not 1 to 63 letters, digits, "-" or "_"',
      '5: "99999" is not a port from 0 to 65535',
      '6: "permit" begins no statement; there are default, group, allow, deny and expect',
    ],
  );
});

test('each mistake has its words', () => {
  const mistakes: readonly (readonly [text: string, words: RegExp])[] = [
    ['default deny\ndefault allow', /2: there is a default already/],
    ['group a = @a', /1: the group "a" contains itself/],
    ['group a = @b\ngroup b = @c\ngroup c = @a', /1: the group "a" contains itself/],
    ['group a\ngroup a = x', /2: the group "a" is in line 1 already/],
    ['group a x', /1: write "group a = MEMBER, MEMBER"/],
    ['allow from @web to any', /1: there is no group "web"; define it with/],
    ['group web\nallow from web to any', /2: "web" means a name here; write "@web" for the group/],
    ['allow from a,,b to any', /1: there is nothing between two commas/],
    ['allow from a to any,', /1: there is nothing between two commas/],
    ['allow from 10.77.0.1/24 to any', /1: .*did you mean 10\.77\.0\.0\/24/],
    ['allow from 10.77.0.300 to any', /1: .*neither a host name nor an IP address/],
    ['allow from a.* to any', /1: .*"\*" may only stand for whole first labels/],
    ['allow from a to b icmp 80', /1: icmp has no ports/],
    ['allow from a to b any 80', /1: "any" is not tcp, udp/],
    ['allow from a to b tcp 80-70', /1: "80-70" is not a range/],
    ['allow from a to b tcp 80 81', /1: write "ACTION from/],
    ['allow from a to b 300', /1: "300" is not tcp, udp/],
    ['expect allow from @web to b', /1: "@web" is a group; give one address or name/],
    ['expect allow from *.web to b', /1: "\*\.web" is a pattern/],
    ['expect allow from 10.0.0.0/8 to b', /1: "10\.0\.0\.0\/8" is a prefix/],
    ['expect allow from a to b tcp 80-90', /1: expect one port at a time/],
    [`group g = ${'x,'.repeat(20_001)}x`, /1: there are more than 20000 members/],
    [
      'allow from any to any\n'.repeat(MAX_DOCUMENT_RULES + 1),
      new RegExp(`${MAX_DOCUMENT_RULES + 1}: there are more than`),
    ],
    ['#'.repeat(MAX_POLICY_TEXT + 1), /1: the policy has more than/],
  ];
  for (const [text, words] of mistakes) assert.match(problemsOf(text).join('\n'), words, text.slice(0, 60));
});

test('any text is a policy or a PolicyTextError, and soon', () => {
  const words = fc.constantFrom(
    ...'default allow deny group expect from to any @a a *.b = , 10.77.0.0/16 ::1 tcp icmp 80 1-2 \n'.split(/ /),
  );
  const text = fc.oneof(
    fc.string(),
    fc.array(words, { maxLength: 40 }).map((list) => list.join(' ')),
  );
  fc.assert(
    fc.property(text, (each) => {
      try {
        parsePolicy(each);
      } catch (error) {
        assert.ok(error instanceof PolicyTextError);
        assert.ok(error.problems.length > 0);
      }
    }),
    { numRuns: runs(800) },
  );
});

function problemsOf(text: string): string[] {
  try {
    parsePolicy(text);
  } catch (error) {
    assert.ok(error instanceof PolicyTextError);
    return error.problems.map(({ line, message }) => `${line}: ${message}`);
  }
  return [];
}

const EXAMPLE = `default deny   # all that is not allowed

group web = *.web, 10.77.1.0/24,   # and
            @partners
Group partners
allow from @web, 10.77.9.9  to db  tcp 5432, 8000-8100

allow from any to any icmp
expect deny from 10.77.1.1 to db udp 53
`.replace('Group', 'group');
