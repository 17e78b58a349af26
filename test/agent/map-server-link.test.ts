/** The link to a map server that takes connections and then fails. */
import { strict as assert } from 'node:assert';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { pino } from 'pino';
import { WebSocketServer } from 'ws';
import { MapServerLink } from '../../agent/shell/map-server-link.ts';
import { createAuthority, createServerCertificate } from '../../mapserver/shell/certificate-authority.ts';
import { CAPABILITY } from '../../proto/capability.ts';

test('a map server that greets and fails before it has answered is left alone for longer and longer', async () => {
  const now = Date.now();
  const authority = createAuthority('test', now);
  const { certificate, key } = createServerCertificate(authority, ['127.0.0.1'], now);
  const server = createServer({ cert: certificate, key });
  const sockets = new WebSocketServer({ server });
  sockets.on('headers', (headers) => headers.push(`stayput-capability: ${CAPABILITY}`));
  const connections: number[] = [];
  const enough = new Promise<void>((resolve) => {
    sockets.on('connection', (socket) => {
      connections.push(performance.now());
      if (connections.length === 6) resolve();
      const overlay = ['10.77.0.0/16'];
      socket.send(JSON.stringify({ type: 'welcome', overlay, zone: 'stayput.internal', instance: 0 }));
      socket.close(1011, 'the store fails');
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  let sessions = 0;
  const link = new MapServerLink(
    { host: '127.0.0.1', port, ca: authority.certificate, certificate, privateKey: key },
    'test',
    {
      onSession: () => {
        sessions += 1;
      },
      onMessage: () => undefined,
      onLost: () => undefined,
      incarnation: () => null,
      onPolicy: () => undefined,
      onAuthorities: () => undefined,
      onFenced: () => undefined,
    },
    pino({ level: 'silent' }),
  );
  link.start();
  await enough;
  link.close();
  sockets.close();
  server.closeAllConnections();
  server.close();
  assert.ok(sessions >= 5);
  const elapsed = (connections.at(-1) ?? 0) - (connections[0] ?? 0);
  assert.ok(elapsed >= 25 + 50 + 100 + 200 + 400, `${elapsed} ms`);
});
