/** Decoders of text and JSON: the data plane's messages, policy, the APIs' bodies, tokens, files and addresses. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AGENT_CONFIG } from '../../agent/config.ts';
import { parseNameservers } from '../../agent/core/dns-resolv-conf.ts';
import * as agentApi from '../../agent/shell/admin-socket.ts';
import * as dataplane from '../../agent/shell/dataplane-link.ts';
import { parseMapServerUrl, tokenFingerprint } from '../../agent/shell/enrolment.ts';
import { parseWelcome } from '../../agent/shell/map-server-connection.ts';
import { libvirtEvents } from '../../cli/hooks/libvirt.ts';
import { CONFIG } from '../../mapserver/config.ts';
import { parseNamePattern } from '../../mapserver/core/grants.ts';
import { checkPolicy } from '../../mapserver/core/policy/inspection.ts';
import * as mapServerApi from '../../mapserver/shell/admin-api.ts';
import { ENROL, secretOf } from '../../mapserver/shell/enrolment.ts';
import { decodeRecord, encodeRecord, RecordError } from '../../mapserver/shell/record-codec.ts';
import { parseTsigKey } from '../../mapserver/shell/tsig-key-file.ts';
import { parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { type Eid, eidKey, parseEid, parseEidKey } from '../../proto/eid.ts';
import { DecodeError, UsageError } from '../../proto/errors.ts';
import { parseTunnelKey, parseXtrId } from '../../proto/identity.ts';
import { formatIncarnation, parseIncarnation } from '../../proto/incarnation.ts';
import {
  decodeAgentPolicy,
  decodePolicyFrame,
  encodePolicyFrames,
  MAX_POLICY_FRAME,
  PolicyAssembly,
} from '../../proto/policy.ts';
import { parseConfig } from '../../runtime/config-file.ts';
import { formatHostPort, parseHostPort } from '../../runtime/host-port.ts';
import { ApiError, parseBody } from '../../runtime/http-api.ts';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import { choosing, chosen, type Decoder, jsonOf, octetsOf, outcome, textOf } from './decoder.ts';

const RULE = {
  ...{ action: 'allow', source: ['10.77.0.0/24'], destination: ['10.77.1.0/24', 'fd77::/48'] },
  ...{
    protocol: 6,
    ports: [
      [80, 80],
      [8000, 8080],
    ],
  },
};
const KEY = 'AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=';
const XTR_ID = '000102030405060708090a0b0c0d0e0f';
const golden = readFileSync(join(PROJECT_ROOT, 'test/vectors/dataplane-channel.jsonl'), 'utf8')
  .split('\n')
  .filter((line) => line !== '')
  .map((line) => JSON.parse(line) as { side: string; message: Record<string, unknown> })
  .filter(({ side }) => side !== 'agent')
  .map(({ message }) => message);
const results = golden
  .map(({ result }) => result)
  .filter((result) => typeof result === 'object' && result !== null && !('listenPort' in result));

interface Text {
  readonly refusals: Parameters<typeof outcome>[0];
  readonly seeds: readonly string[];
  readonly parse: (text: string) => unknown;
  /** The value as text, for what does not stay text. */
  readonly format?: (value: never) => string;
}

type HostPort = ReturnType<typeof parseHostPort>;

const ADDRESSES: readonly Text[] = [
  { refusals: [DecodeError], seeds: ['10.77.0.5', 'fd77::5', '::ffff:1.2.3.4'], parse: parseIpAddress },
  { refusals: [DecodeError], seeds: ['10.77.0.0/16', 'fd77::/48'], parse: parseIpPrefix },
  { refusals: [DecodeError], seeds: [KEY], parse: parseTunnelKey },
  { refusals: [DecodeError], seeds: [XTR_ID], parse: parseXtrId },
  { refusals: [DecodeError], seeds: ['*.db', 'db.shop'], parse: parseNamePattern },
  {
    refusals: [DecodeError],
    seeds: [...['10.77.0.5', 'db'].map((text) => eidKey(parseEid(text))), '[7]10.77.0.5/32'],
    parse: parseEidKey,
    format: eidKey,
  },
  {
    refusals: [DecodeError],
    seeds: ['10.77.0.5', 'fd77::/48', 'db.shop'],
    parse: (text) => parseEid(text),
    format: (eid: Eid) => (eid.kind === 'name' ? eid.name : eid.prefix),
  },
  {
    refusals: [DecodeError],
    seeds: ['5.0123456789abcdef.7'],
    parse: parseIncarnation,
    format: formatIncarnation,
  },
  {
    refusals: [UsageError],
    seeds: ['[fd77::5]:4342', 'host:53'],
    parse: parseHostPort,
    format: ({ host, port }: HostPort) => formatHostPort(host, port),
  },
  {
    refusals: [UsageError],
    seeds: ['https://mapserver.example:4342'],
    parse: parseMapServerUrl,
    format: ({ host, port }: HostPort) => `https://${formatHostPort(host, port)}`,
  },
];

const REPLIES = [
  dataplane.HELLO_REPLY,
  dataplane.STATS_REPLY,
  dataplane.PEERS_REPLY,
  dataplane.CORRESPONDENTS_REPLY,
  dataplane.FORWARDING_REPLY,
  dataplane.SLEEP_REPLY,
  dataplane.WAKE_REPLY,
].map((schema) => ({ schema, seeds: results.filter((result) => schema.safeParse(result).success) }));

const BODIES = [
  { schema: agentApi.ATTACH, seed: { eid: '10.77.0.5/32', names: ['db'], interface: 'vm0', when: 'seen' } },
  { schema: agentApi.LEAVE, seed: { interface: 'vm0', patienceSeconds: 5 } },
  { schema: agentApi.PING, seed: { target: 'db' } },
  { schema: mapServerApi.ATTACH, seed: { eid: '10.77.0.5/32', agent: XTR_ID, interface: null, timeoutMs: 1000 } },
  { schema: mapServerApi.DETACH, seed: { eid: '10.77.0.5/32', timeoutMs: '1000' } },
  {
    schema: mapServerApi.NEW_TOKEN,
    seed: { eids: ['10.77.0.0/24'], names: ['*.db', 'web'], uses: 3, expiresInMs: 60_000 },
  },
  { schema: mapServerApi.GRANT_CHANGE, seed: { agent: XTR_ID, eids: ['10.77.0.0/24'], names: [] } },
  { schema: mapServerApi.REVOCATION, seed: { withToken: true } },
  {
    schema: ENROL,
    seed: {
      ...{ token: 'stp1.x', csr: '-----', tunnelKey: KEY },
      ...{ eids: ['10.77.0.5/32'], names: ['db'], software: 'stayput/1' },
    },
  },
];

export const TEXT_DECODERS: readonly Decoder[] = [
  {
    name: 'dataplane-message',
    form: 'json',
    seeds: jsonOf(...golden),
    run: (input) => outcome([dataplane.DataplaneError], () => dataplane.parseIncoming(textOf(input))),
  },
  {
    name: 'dataplane-reply',
    form: 'json',
    seeds: REPLIES.flatMap(({ seeds }, which) => jsonOf(...seeds).map((seed) => choosing(which, seed))),
    run: (input) => {
      const { which, rest } = chosen(input, REPLIES.length);
      const { schema } = REPLIES[which]!;
      return outcome([dataplane.DataplaneError], () => dataplane.parseReply<unknown>(schema, json(rest), 'it'));
    },
  },
  {
    name: 'welcome',
    form: 'json',
    seeds: jsonOf({
      ...{ type: 'welcome', overlay: ['10.77.0.0/16', 'fd77::/48'], zone: 'stayput.internal', instance: 7 },
      ...{ heartbeatMs: 1000, observed: { address: '::ffff:192.0.2.1', port: 4711 } },
    }),
    run: (input) =>
      outcome([], () => {
        const welcome = parseWelcome(textOf(input));
        return typeof welcome === 'string' ? { type: welcome.replace(/\d+|".*"|'.*'/gs, '') } : welcome;
      }),
  },
  {
    name: 'policy',
    form: 'json',
    seeds: jsonOf(
      {
        type: 'policy',
        version: 1000001,
        default: 'deny',
        part: 0,
        parts: 1,
        rules: [RULE, { ...RULE, protocol: null, ports: [] }],
      },
      { version: 2000000, default: 'allow', rules: [{ ...RULE, protocol: 1, ports: [] }] },
    ),
    run: (input) =>
      outcome([DecodeError], () => {
        const value = json(input);
        const isFrame = typeof value === 'object' && value !== null && 'type' in value;
        const policy = isFrame ? new PolicyAssembly().add(decodePolicyFrame(value)) : decodeAgentPolicy(value);
        if (policy === undefined) return policy;
        const assembly = new PolicyAssembly();
        const frames = encodePolicyFrames(policy);
        const again = frames.map((frame) => assembly.add(decodePolicyFrame(JSON.parse(frame)))).at(-1);
        assert.deepEqual(again, policy);
        assert.ok(frames.every((frame) => frame.length <= MAX_POLICY_FRAME));
        return policy;
      }),
  },
  {
    name: 'policy-text',
    form: 'text',
    seeds: octetsOf(
      [
        '# Who may talk to whom\ndefault deny\ngroup web = *.web, 10.77.1.0/24\ngroup ops',
        'allow from @web to @ops tcp 5432, 8000-8080\ndeny from 10.77.66.0/24 to any # quarantine\nallow from any to any icmp',
        'expect allow from shop.web to db icmp\nexpect deny from 10.77.66.1 to 10.77.1.1 tcp 22\n',
      ].join('\n'),
    ),
    run: (input) =>
      outcome([], () => {
        const { ok, document, problems, warnings } = checkPolicy(textOf(input));
        assert.ok(!ok || document !== undefined);
        return { type: problems[0]?.message.replace(/["“‘'].*|\d+/gs, ''), problems, warnings };
      }),
  },
  {
    name: 'api-body',
    form: 'json',
    seeds: BODIES.flatMap(({ seed }, which) => jsonOf(seed).map((octets) => choosing(which, octets))),
    run: (input) => {
      const { which, rest } = chosen(input, BODIES.length);
      return outcome([ApiError], () => parseBody(BODIES[which]!.schema, json(rest)));
    },
  },
  {
    name: 'join-token',
    form: 'json',
    seeds: [0, 1].flatMap((which) =>
      jsonOf({ f: 'ab'.repeat(32), s: 'x'.repeat(32) }).map((seed) => choosing(which, seed)),
    ),
    // By the agent and by the map server, each also where all of it is text from anywhere.
    run: (input) => {
      const { which, rest } = chosen(input, 4);
      const token = which < 2 ? `stp1.${Buffer.from(rest).toString('base64url')}` : textOf(rest);
      return which % 2 === 0
        ? outcome([UsageError], () => tokenFingerprint(token))
        : outcome([ApiError], () => secretOf(token));
    },
  },
  {
    name: 'agent-config',
    form: 'json',
    seeds: jsonOf(
      { listenPort: 4341, mtu: 1420, dns: { enabled: true, listen: ['127.0.0.1:53'], upstreams: ['192.0.2.53'] } },
      {
        locators: [
          { address: '203.0.113.5', port: 4341, priority: 2 },
          { interface: 'eth1', weight: 10 },
        ],
      },
    ),
    run: (input) => configOutcome(() => parseConfig(AGENT_CONFIG, 'agent.json', textOf(input))),
  },
  {
    name: 'mapserver-config',
    form: 'json',
    seeds: jsonOf(
      { dataDir: '/tmp/x', listen: ['[::]:4342'], limits: { agents: 5, tokens: 7 }, logLevel: 'debug' },
      {},
    ),
    run: (input) => configOutcome(() => parseConfig(CONFIG, 'mapserver.json', textOf(input))),
  },
  {
    name: 'store-record',
    form: 'json',
    seeds: jsonOf(
      {
        ...{
          kind: 'eid',
          eid: eidKey(parseEid('10.77.0.5')),
          generation: 4,
          owner: XTR_ID,
          tunnelKey: KEY,
          state: 'live',
        },
        ...{ ownerSince: 1, ttl: 60_000, names: ['db'], targets: ['fd53:7461:7970:7574::1'] },
        locators: [{ address: '192.0.2.1', port: 4341, priority: 1, weight: 100 }],
      },
      {
        ...{
          kind: 'agent',
          xtrId: XTR_ID,
          tunnelKey: KEY,
          certificateKey: 'ab',
          tokenId: 't',
          eids: ['10.77.0.0/24'],
          withdrawn: ['10.77.9.0/24'],
        },
        ...{
          names: ['*'],
          software: 'x',
          enrolledAt: 1,
          revokedAt: 2,
          incarnation: { run: 3, process: '0123456789abcdef' },
        },
      },
      {
        ...{ kind: 'token', id: 't', secretHash: 'ab', eids: [], names: [], uses: 1, used: 0 },
        ...{ createdAt: 1, expiresAt: 2 },
      },
    ),
    run: (input) =>
      outcome([RecordError], () => {
        const record = decodeRecord('eid/x', textOf(input));
        assert.ok(record !== undefined);
        const again = decodeRecord('eid/x', encodeRecord(record));
        // As text, since JSON has a -0, which is written as 0; nothing in a record tells the two apart.
        assert.ok(again !== undefined && encodeRecord(again) === encodeRecord(record));
        return record;
      }),
  },
  {
    name: 'tsig-key',
    form: 'text',
    seeds: octetsOf(
      'key "xfr.test" { algorithm hmac-sha256; secret "c3RheXB1dC10c2lnLXRlc3Qtc2VjcmV0LTAxMjM0NTY3ODk="; };\n',
      '# made today\nkey a {\n\talgorithm HMAC-SHA512;\n\tsecret "AAAA//AAAAAAAAAAAAAAAAAAAAAAAA==";\n};',
    ),
    run: (input) =>
      outcome([DecodeError], () => {
        const { name, algorithm, secret } = parseTsigKey(textOf(input));
        const base64 = Buffer.from(secret).toString('base64');
        const again = parseTsigKey(`key "${name}" { algorithm ${algorithm}; secret "${base64}"; };`);
        assert.ok(again.name === name && Buffer.compare(again.secret, secret) === 0);
        return { name, algorithm };
      }),
  },
  {
    name: 'resolv-conf',
    form: 'text',
    seeds: octetsOf('# c\nnameserver 192.0.2.53\nnameserver fe80::1%eth0 ; x\nsearch example\noptions edns0\n'),
    run: (input) =>
      outcome([], () => {
        const found = parseNameservers(textOf(input));
        assert.ok(found.length <= 8 && found.every((host) => !/\s/.test(host)));
        return found;
      }),
  },
  {
    name: 'libvirt-domain',
    form: 'text',
    seeds: octetsOf(
      `<domain><metadata><stayput:workload xmlns:stayput="urn:stayput:workload:1"><stayput:eid address="10.77.0.9" name="db" mac="52:54:00:00:00:09"/></stayput:workload></metadata><devices><interface type="ethernet"><mac address="52:54:00:00:00:09"/><target dev="vnet0"/></interface></devices></domain>`,
    ),
    run: (input) => outcome([UsageError], () => libvirtEvents('started', 'begin', textOf(input))),
  },
  {
    name: 'addresses',
    form: 'text',
    seeds: ADDRESSES.flatMap(({ seeds }, which) => octetsOf(...seeds).map((seed) => choosing(which, seed))),
    run: (input) => {
      const { which, rest } = chosen(input, ADDRESSES.length);
      const { refusals, parse, format = String } = ADDRESSES[which]!;
      return outcome(refusals, () => {
        const value = parse(textOf(rest));
        assert.deepEqual(parse(format(value as never)), value);
        return value;
      });
    },
  },
];

/** What is not JSON is refused before the decoder, in one place. */
function json(input: Uint8Array): unknown {
  try {
    return JSON.parse(textOf(input));
  } catch {
    return undefined;
  }
}

function configOutcome(parse: () => unknown): unknown {
  return outcome([UsageError], () => {
    try {
      return parse();
    } catch (error) {
      assert.doesNotMatch((error as Error).message, /[\n\r]/, 'an error of the configuration is one line');
      throw error;
    }
  });
}
