/** The agent's configuration file: every key, its default and its bounds. */
import { z } from 'zod';
import { isIpAddress, parseIpAddress, parseIpPrefix, prefixLength } from '../proto/address.ts';
import { loadConfig } from '../runtime/config-file.ts';
import { isHostPort } from '../runtime/host-port.ts';
import { LOG_LEVELS } from '../runtime/log.ts';
import { PLATFORM_NAMES } from './platform/platform.ts';

export const DEFAULT_CONFIG_PATH = '/etc/stayput/agent.json';
export const DEFAULT_SOCKET = '/run/stayput/agent.sock';
export const DEFAULT_STATE_DIR = '/var/lib/stayput/agent';

const path = z.string().min(1).max(4096);
const address = z
  .string()
  .refine(isIpAddress, 'is not an IPv4 or IPv6 address')
  .transform((text) => parseIpAddress(text));
const listen = z.string().refine(isHostPort, 'is not HOST:PORT (an IPv6 address in brackets)');

const upstream = z.union(
  [listen, address, z.string().regex(/^tls:\/\/[^#/]+(#[\w.-]{1,253})?$/)],
  'is not ADDRESS, ADDRESS:PORT or tls://ADDRESS[:PORT]#NAME',
);
const domainName = z
  .string()
  .max(253)
  .regex(/^[\w-]{1,63}(\.[\w-]{1,63})*\.?$/, 'is not a domain name');

const DNS = z.strictObject({
  /** Answer for the overlay's zone and forward everything else. */
  enabled: z.boolean().default(true),
  /** UDP and TCP. */
  listen: z.array(listen).min(1).max(16).default(['127.0.0.1:53']),
  /** Resolvers for all other names; empty: the nameservers of `resolvConf`. */
  upstreams: z.array(upstream).max(8).default([]),
  /** Zones that are asked of resolvers of their own, wherever the host is. */
  zones: z
    .array(z.strictObject({ zone: domainName, upstreams: z.array(upstream).min(1).max(8) }))
    .max(64)
    .default([]),
  /** Certificates (PEM) that are trusted for `tls://`; null: those that Node trusts. */
  tlsAuthorities: path.nullable().default(null),
  resolvConf: path.default('/etc/resolv.conf'),
  /** Answers of upstream resolvers that are kept. */
  cacheEntries: z.int().min(16).max(1_000_000).default(10_000),
  /** A file for a line about each question; null for none. */
  queryLog: path.nullable().default(null),
  /** How `stayput dns host` makes this host's programs ask the agent. */
  host: z.enum(['off', 'auto', 'resolved', 'resolvconf', 'file']).default('off'),
});

const IDENTITY = z.strictObject({
  /** On another machine than the one that joined: use the identity only after `stayput agent reset-identity`, or go on. */
  onMachineChange: z.enum(['refuse', 'accept']).default('refuse'),
});

const prefix = z.string().transform((text, context) => {
  try {
    return parseIpPrefix(text);
  } catch {
    context.addIssue('is not an IP prefix without host bits');
    return z.NEVER;
  }
});
const prefixes = z.array(prefix).max(64);
/** Of EIDs, which are routed into the TUN. */
const SHORTEST_EIDS = 4;
const eidPrefixes = prefixes.refine(
  (list) => list.every((each) => prefixLength(each) >= SHORTEST_EIDS),
  'has a prefix of less than 4 bits',
);

/** Map-Servers of others. */
const MAP_SERVERS = z
  .array(
    z
      .strictObject({
        address,
        port: z.int().min(1).max(65535).default(4342),
        /** A file with the key of the site there, one line. */
        keyFile: path.nullable().default(null),
        keyId: z.int().min(0).max(255).default(0),
        algorithm: z.enum(['hmac-sha-256', 'hkdf']).default('hmac-sha-256'),
        /** Sign as lispers.net and OOR want it: the whole message, with the digest not truncated. */
        wholeDigest: z.boolean().default(false),
        /** Own EIDs inside these are registered there. */
        eids: prefixes.default([]),
        /** For EIDs inside these it is asked, and not the own map server. */
        resolve: eidPrefixes.default([]),
      })
      .refine(({ eids, keyFile }) => eids.length === 0 || keyFile !== null, 'has eids, but no keyFile'),
  )
  .max(8)
  .refine((list) => new Set(list.map((each) => each.address)).size === list.length, 'names an address twice');

const LISP = z
  .strictObject({
    /**
     * Sites of LISP routers with which plain packets are exchanged: their RLOCs, and EIDs that are behind them whatever
     * the map server says.
     */
    plain: z
      .array(
        z.strictObject({
          rlocs: prefixes.min(1),
          eids: prefixes
            .refine(
              (list) => list.every((each) => prefixLength(each) >= SHORTEST_EIDS),
              'has a prefix of less than 4 bits',
            )
            .default([]),
        }),
      )
      .max(64)
      .default([]),
    /** Instance ID of plain packets; null for that of the overlay. */
    instance: z.int().min(0).max(0xff_ffff).nullable().default(null),
    /** Pass packets on between these sites and the tunnels. */
    gateway: z.boolean().default(false),
    /** Of the RLOCs of these sites; `intervalSeconds` 0: none. */
    probes: z
      .strictObject({
        intervalSeconds: z.int().min(0).max(3600).default(10),
        timeoutMs: z.int().min(100).max(10_000).default(1000),
        tries: z.int().min(1).max(10).default(3),
      })
      .prefault({}),
    /** Where own EIDs are registered, and others asked for, beside the own map server. */
    mapServers: MAP_SERVERS.default([]),
  })
  .refine(
    ({ plain, mapServers }) => plain.length > 0 || mapServers.length === 0,
    'has mapServers, but no plain: no packets would be exchanged with what is there',
  );

const PREFERENCE = {
  priority: z.int().min(0).max(254).optional(),
  weight: z.int().min(0).max(100).optional(),
};

export const AGENT_CONFIG = z.strictObject({
  /** Identity, keys, own EIDs and the map-cache. */
  stateDir: path.default(DEFAULT_STATE_DIR),
  /** For `stayput status` and the other commands. */
  socket: path.default(DEFAULT_SOCKET),
  /** Where stayput-dataplane listens. */
  dataplaneSocket: path.default('/run/stayput/dataplane.sock'),
  /** UDP port of the tunnels. */
  listenPort: z.int().min(1).max(65535).default(4341),
  /** MTU of the TUN interface. */
  mtu: z.int().min(1280).max(9000).default(1420),
  /** Prometheus metrics and /healthz; null switches them off. */
  metricsListen: listen.nullable().default('127.0.0.1:9341'),
  /** Where Prometheus reaches `metricsListen`, when that is all addresses: what the map server lists. */
  metricsAddress: z.union([z.enum(['underlay', 'eid']), address]).default('underlay'),
  dns: DNS.prefault({}),
  /**
   * Addresses that reach this host although no interface has them (static NAT, elastic IP), and how interfaces are
   * preferred.
   */
  locators: z
    .array(
      z.union([
        z.strictObject({ address, port: z.int().min(1).max(65535).optional(), ...PREFERENCE }),
        z.strictObject({ interface: z.string().min(1).max(15), ...PREFERENCE }),
      ]),
    )
    .max(8)
    .default([]),
  /** Whom to ask for public addresses: what is recognised, nobody, or one by name. */
  platform: z.enum(['auto', 'off', ...PLATFORM_NAMES]).default('auto'),
  /** A program that is run when the platform announces maintenance of this host, and when that is over. */
  maintenanceHook: path.nullable().default(null),
  identity: IDENTITY.prefault({}),
  lisp: LISP.prefault({}),
  logLevel: z.enum(LOG_LEVELS).default('info'),
});

export type AgentConfig = z.output<typeof AGENT_CONFIG>;

/** @throws UsageError. Without `configPath` the default file is read if it exists. */
export function loadAgentConfig(
  configPath: string | undefined,
  overrides: Readonly<Record<string, unknown>> = {},
): AgentConfig {
  return loadConfig(AGENT_CONFIG, configPath ?? DEFAULT_CONFIG_PATH, { required: configPath !== undefined, overrides });
}
