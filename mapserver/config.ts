/** The map server's configuration file, all of it. */
import { z } from 'zod';
import { isIpAddress } from '../proto/address.ts';
import { isHostPort, parseHostPort } from '../runtime/host-port.ts';
import { LOG_LEVELS } from '../runtime/log.ts';
import { ipAddressText, ipPrefixText, namePatternText } from './shell/record-codec.ts';

const MOST = 1_000_000_000;
const count = (standard: number, description: string, least = 1) =>
  z.int().min(least).max(MOST).default(standard).describe(description);

const hostPort = z.string().refine(isHostPort, 'is not HOST:PORT (an IPv6 address in brackets)');
const addressPort = z
  .string()
  .refine((text) => isHostPort(text) && isIpAddress(parseHostPort(text).host), 'is not ADDRESS:PORT');

const LIMITS = z.strictObject({
  connections: count(20_000, 'TCP connections at a time'),
  connectionsPerAddress: count(1_000, 'TCP connections at a time from one address (IPv6: /64)'),
  connectionsPerSecondAndAddress: count(
    100,
    'new TCP connections per second from one address (IPv6: /64), ten times as many at once',
  ),
  waitingConnections: count(2_000, "connections that are not an agent's session yet; the oldest gives way"),
  waitingConnectionsPerAddress: count(500, 'of these, those from one address (IPv6: /64)'),
  handshakeSeconds: z.number().min(0.1).max(60).default(5).describe('time for the TLS handshake'),
  requestSeconds: z
    .number()
    .min(0.1)
    .max(300)
    .default(15)
    .describe('time from the TLS handshake until a connection is a session, or closed'),
  messagesPerSecond: count(2_000, 'messages per second of one agent; a faster one is read more slowly'),
  registrationsPerSecond: count(
    1_000,
    'EID-records of Map-Registers per second of one agent; a faster one is read more slowly',
    255,
  ),
  octetsPerSecond: count(
    1024 * 1024,
    'octets per second of one agent, inside TLS; a faster one is read more slowly',
    65_536,
  ),
  controlFramesPerSecond: count(50, 'pings and pongs per second of one agent; a faster one is disconnected', 30),
  messageSeconds: z
    .number()
    .min(0.1)
    .max(60)
    .default(10)
    .describe('time from the first octet of a message to its last; a slower agent is disconnected'),
  bufferedOctets: count(4 * 1024 * 1024, 'octets that wait for a slow agent before it is disconnected'),
  bufferedOctetsOfAll: count(
    256 * 1024 * 1024,
    'octets that wait for all agents; beyond, those are disconnected for which most wait',
  ),
  enrolmentsPerSecond: count(50, 'enrolments with a valid token per second, of all'),
  enrolmentsPerSecondAndSource: count(
    10,
    'attempts to enrol per second from one address (IPv6: /64), five times as many at once',
  ),
  agents: count(20_000, 'enrolled agents'),
  tokens: count(10_000, 'join tokens'),
  names: count(100_000, 'names at which records are set'),
  mappingsPerAgent: count(1_024, 'EIDs that one agent owns'),
  releasedPerAgent: count(4_096, 'EIDs that one agent was the last to own; beyond, it is refused ones that nobody had'),
  sites: count(10_000, 'sites of LISP routers'),
  mappingsPerSite: count(100_000, 'EIDs that one site owns'),
  mappings: count(500_000, 'EIDs that were ever registered'),
  subscriptionsPerAgent: count(20_000, 'EIDs that one agent follows'),
  subscriptions: count(2_000_000, 'subscriptions of all agents'),
  pending: count(20_000, 'registrations and operations that wait for the store'),
});

const ENROLMENT = z.strictObject({
  certificateHours: z
    .number()
    .min(1)
    .max(24 * 365)
    .default(720)
    .describe('life of the certificates of agents, which renew them at two thirds of it'),
  expiredRenewal: z
    .enum(['allow', 'refuse'])
    .default('refuse')
    .describe('whether an agent whose certificate has ended comes back with its key'),
  expiredMaxDays: z.number().min(0).max(3650).default(30).describe('with `allow`: for how long after the end'),
});

const AUDIT = z.strictObject({
  maxMegabytes: z.number().min(0.001).max(4096).default(32).describe('size at which `audit.log` is rotated'),
  olderFiles: z.int().min(0).max(1000).default(15).describe('how many older files stay (`audit.log.1`, the newest)'),
});

const ZONE = z.strictObject({
  listen: z
    .array(hostPort)
    .max(8)
    .default([])
    .describe('HOST:PORT of UDP and TCP, one or several, where name servers take the zone; empty for none'),
  nameServers: z
    .array(z.string())
    .max(13)
    .default([])
    .describe('host names of those that serve clients, for NS; empty: the zone itself'),
  keyFiles: z.array(z.string()).max(64).default([]).describe('files with one TSIG key each, readable by nobody else'),
  transferKeys: z.array(z.string()).max(64).default([]).describe('names of keys with which the zone is read'),
  transferAddresses: z
    .array(ipPrefixText)
    .max(64)
    .default([])
    .describe('prefixes from which the zone is read without a key'),
  notify: z
    .array(z.strictObject({ address: addressPort, key: z.string().optional() }))
    .max(16)
    .default([])
    .describe('secondaries that are told of changes: `address` (ADDRESS:PORT), and `key` to sign with'),
  updates: z
    .array(z.strictObject({ key: z.string(), names: z.array(namePatternText).min(1).max(256) }))
    .max(64)
    .default([])
    .describe('dynamic updates: the name of a `key`, and the `names` (or patterns like `*.web`) that it may change'),
});

const LISP = z.strictObject({
  listen: z
    .array(hostPort)
    .max(8)
    .default([])
    .describe('HOST:PORT of UDP, one or several, where LISP routers are served; empty for none'),
  rtrs: z.array(ipAddressText).max(8).default([]).describe('RTRs that relay for routers behind NATs'),
  messagesPerSecond: count(
    2_000,
    'LISP messages per second from one address (IPv6: /64), twice as many at once; each KiB of one counts as one more',
  ),
  requesters: z
    .array(ipPrefixText)
    .max(1_024)
    .default([])
    .describe('prefixes of underlay addresses that may send Map-Requests; RLOCs of sites may in any case'),
  answerMinutes: z.int().min(1).max(1_440).default(1).describe('TTL of answers to LISP routers, at most'),
  publicationMinutes: z.int().min(1).max(1_440).default(10).describe('TTL of what subscribers are told, at most'),
  subscriptionsPerXtr: count(1_000, 'subscriptions over UDP of one xTR-ID'),
  subscriptions: count(100_000, 'subscriptions over UDP, and nonces of those that have ended'),
  repliesPerSecond: count(500, 'EIDs that one address is told of per second, twice as many at once'),
  gateways: z
    .array(z.string().regex(/^[0-9a-f]{32}$/, 'is not an xTR-ID'))
    .max(16)
    .default([])
    .describe('xTR-IDs of agents that join LISP sites and tunnels; the first that is there serves'),
  rememberedAnswers: count(100_000, 'answers to LISP routers that are remembered, to tell of changes'),
});

export const CONFIG = z.strictObject({
  dataDir: z.string().min(1).default('/var/lib/stayput/mapserver').describe('made by "stayput mapserver init"'),
  listen: z
    .union([hostPort, z.array(hostPort).min(1).max(8)])
    .optional()
    .describe('HOST:PORT, one or several, for agents and enrolment; all addresses, with the port given to init'),
  reflectorListen: z
    .array(hostPort)
    .max(8)
    .nullable()
    .default(null)
    .describe(
      'HOST:PORT of UDP, one or several, where hosts learn how they are seen; null: the two ports after each of `listen`; empty for none',
    ),
  metricsListen: hostPort
    .or(z.literal(''))
    .default('127.0.0.1:9342')
    .describe('HOST:PORT of the metrics; empty for none'),
  discoveryTokenFile: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('a file with the token for which Prometheus is given the list of agents; null: nobody is given it'),
  heartbeatMs: z.int().min(100).max(60_000).default(1_000).describe('a ping each; silent for three, a peer is dead'),
  graceSeconds: z.number().min(0).max(86_400).default(180).describe('how long mappings of an absent agent stay'),
  enrolment: ENROLMENT.prefault({}),
  audit: AUDIT.prefault({}),
  zone: ZONE.prefault({}),
  lisp: LISP.prefault({}),
  limits: LIMITS.prefault({}),
  logLevel: z.enum(LOG_LEVELS).default('info'),
});

export type MapServerSettings = z.output<typeof CONFIG>;
export const CONFIG_PATH = '/etc/stayput/mapserver.json';
