/** Decoders of text and JSON: the data plane's messages, policy, the APIs' bodies, tokens, files and addresses. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AGENT_CONFIG } from '../../agent/config.ts';
import { parseNameservers } from '../../agent/core/dns-resolv-conf.ts';
import * as agentApi from '../../agent/shell/admin-socket.ts';
import * as dataplane from '../../agent/shell/dataplane-link.ts';
import { parseMapServerUrl, parseToken } from '../../agent/shell/enrolment.ts';
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
import { type Decoder, jsonOf, octetsOf, outcome, textOf } from './decoder.ts';

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
    seeds: jsonOf(...results),
    run: (input) => {
      const value = json(input);
      return REPLIES.map((schema) =>
        outcome([dataplane.DataplaneError], () => dataplane.parseReply<unknown>(schema, value, 'it')),
      ).join(' | ');
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
        const { ok, document, problems, warnings } = checkPolicy(textOf(input), null);
        assert.ok(!ok || document !== undefined);
        return { type: problems[0]?.message.replace(/["“‘'].*|\d+/gs, ''), problems, warnings };
      }),
  },
  {
    name: 'api-body',
    form: 'json',
    seeds: jsonOf(
      { eid: '10.77.0.5/32', names: ['db'], interface: 'vm0', when: 'seen' },
      { interface: 'vm0', patienceSeconds: 5 },
      { target: 'db' },
      { eid: '10.77.0.5/32', agent: XTR_ID, interface: null, timeoutMs: 1000 },
      { eid: '10.77.0.5/32', timeoutMs: '1000' },
      { eids: ['10.77.0.0/24'], names: ['*.db', 'web'], uses: 3, expiresInMs: 60_000 },
      { agent: XTR_ID, eids: ['10.77.0.0/24'], names: [] },
      { token: 'stp1.x', csr: '-----', tunnelKey: KEY, eids: ['10.77.0.5/32'], names: ['db'], software: 'stayput/1' },
    ),
    run: (input) => {
      const value = json(input);
      return BODIES.map((schema) => outcome([ApiError], () => parseBody(schema, value))).join(' | ');
    },
  },
  {
    name: 'join-token',
    form: 'json',
    seeds: jsonOf({ f: 'ab'.repeat(32), s: 'x'.repeat(32) }),
    run: (input) => {
      const token = `stp1.${Buffer.from(input).toString('base64url')}`;
      const atAgent = outcome([UsageError], () => parseToken(token));
      const atMapServer = outcome([ApiError], () => secretOf(token));
      outcome([UsageError], () => parseToken(textOf(input)));
      outcome([ApiError], () => secretOf(textOf(input)));
      return `${atAgent} | ${atMapServer}`;
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
        assert.deepEqual(decodeRecord('eid/x', encodeRecord(record)), record);
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
    seeds: octetsOf(
      ...[
        '10.77.0.5',
        'fd77::5',
        '10.77.0.0/16',
        'fd77::/48',
        '::ffff:1.2.3.4',
        '[7]10.77.0.5/32',
        'db.stayput',
        '*.db',
      ],
      ...['[fd77::5]:4342', 'host:53', 'https://mapserver.example:4342', '5.0123456789abcdef.7', KEY, XTR_ID],
      eidKey(parseEid('10.77.0.5')),
      eidKey(parseEid('db')),
    ),
    run: (input) => {
      const text = textOf(input);
      return ADDRESSES.map(({ refusals, parse, format = String }) =>
        outcome(refusals, () => {
          const value = parse(text);
          assert.deepEqual(parse(format(value as never)), value);
          return typeof value;
        }).slice(0, 40),
      ).join(' | ');
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

function configOutcome(parse: () => unknown): string {
  return outcome([UsageError], () => {
    try {
      return parse();
    } catch (error) {
      assert.doesNotMatch((error as Error).message, /[\n\r]/, 'an error of the configuration is one line');
      throw error;
    }
  });
}

interface Text {
  readonly refusals: Parameters<typeof outcome>[0];
  readonly parse: (text: string) => unknown;
  /** The value as text, for what does not stay text. */
  readonly format?: (value: never) => string;
}

type HostPort = ReturnType<typeof parseHostPort>;

const ADDRESSES: readonly Text[] = [
  { refusals: [DecodeError], parse: parseIpAddress },
  { refusals: [DecodeError], parse: parseIpPrefix },
  { refusals: [DecodeError], parse: parseTunnelKey },
  { refusals: [DecodeError], parse: parseXtrId },
  { refusals: [DecodeError], parse: parseNamePattern },
  { refusals: [DecodeError], parse: parseEidKey, format: eidKey },
  {
    refusals: [DecodeError],
    parse: (text) => parseEid(text),
    format: (eid: Eid) => (eid.kind === 'name' ? eid.name : eid.prefix),
  },
  { refusals: [DecodeError], parse: parseIncarnation, format: formatIncarnation },
  { refusals: [UsageError], parse: parseHostPort, format: ({ host, port }: HostPort) => formatHostPort(host, port) },
  {
    refusals: [UsageError],
    parse: parseMapServerUrl,
    format: ({ host, port }: HostPort) => `https://${formatHostPort(host, port)}`,
  },
];

const REPLIES = [
  ...[dataplane.HELLO_REPLY, dataplane.STATS_REPLY, dataplane.PEERS_REPLY, dataplane.CORRESPONDENTS_REPLY],
  dataplane.FORWARDING_REPLY,
];

const BODIES = [
  ...[agentApi.ATTACH, agentApi.LEAVE, agentApi.PING],
  ...[
    mapServerApi.ATTACH,
    mapServerApi.DETACH,
    mapServerApi.NEW_TOKEN,
    mapServerApi.GRANT_CHANGE,
    mapServerApi.REVOCATION,
    ENROL,
  ],
];
