/**
 * The DNS service of an agent with a small overlay, its socket as far as `stayput dns` needs it, and the resolvers of
 * two places, which know every `NAME.example`, and `only.site.example`, as their own address.
 * Arguments: the socket, then where to listen.
 */
import { createSocket } from 'node:dgram';
import { rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { decode } from 'dns-packet';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { startDnsServer } from '../../agent/shell/dns-server.ts';
import type { NameResolver } from '../../agent/shell/name-resolver.ts';
import { type IpAddress, parseIpAddress, parseIpPrefix } from '../../proto/address.ts';
import { reverseZones } from '../../proto/dns/reverse-zones.ts';
import { InheritedSockets } from '../../runtime/inherited-sockets.ts';
import { answer } from '../agent/dns-support.ts';
import { PLACE_1, PLACE_2 } from './dns-host-sandbox.ts';

const [socket = '', ...listen] = process.argv.slice(2);
const overlay = ['10.77.0.0/16', 'fd00:77::/48'].map(parseIpPrefix);
const NAMES: Readonly<Record<string, readonly IpAddress[]>> = {
  db: ['10.77.0.9'].map(parseIpAddress),
  web: ['10.77.0.5', 'fd00:77::5'].map(parseIpAddress),
};
const resolver: NameResolver = {
  zone: 'stayput.internal',
  overlay,
  version: 0,
  resolveName: async (name) => {
    const addresses = NAMES[name];
    return addresses === undefined ? { kind: 'absent' } : { kind: 'found', addresses, stale: false };
  },
  resolvePointer: async (address) => {
    const names = Object.keys(NAMES).filter((name) => NAMES[name]?.includes(address));
    return names.length === 0 ? { kind: 'absent' } : { kind: 'found', names, stale: false };
  },
};

for (const place of [PLACE_1, PLACE_2]) {
  const server = createSocket('udp4');
  server.on('message', (packet, from) => {
    const question = decode(packet).questions?.[0];
    const known = question?.type === 'A' && /^(\w+|only\.site)\.example$/i.test(question.name);
    const answers = known ? [{ type: 'A' as const, name: question.name, ttl: 60, data: place }] : [];
    server.send(answer(packet, 0, answers), from.port, from.address);
  });
  await new Promise<void>((resolve) => server.bind(53, place, resolve));
}
const dns = await startDnsServer({
  listen,
  inherited: new InheritedSockets([]),
  resolver,
  upstreams: [],
  zones: [],
  tlsAuthorities: null,
  queryLog: null,
  mapServer: 'mapserver.example',
  cacheEntries: 100,
  resolvConf: '/etc/resolv.conf',
  registry: new Registry(),
  log: pino({ level: 'silent' }),
});
rmSync(socket, { force: true });
createServer((request, response) => {
  const dnsStatus = {
    zone: resolver.zone,
    reverseZones: overlay.flatMap(reverseZones),
    listen: dns.addresses,
    upstreams: dns.upstreams,
    addresses: ['10.77.0.5'],
  };
  const answers: Readonly<Record<string, unknown>> = {
    '/v1/dns': dnsStatus,
    '/v1/eids': { eids: [{ names: ['db'] }] },
    '/v1/status': { mapServer: { host: 'mapserver.example' } },
  };
  response.end(JSON.stringify(answers[request.url ?? '']));
}).listen(socket, () => process.stdout.write('ready\n'));
