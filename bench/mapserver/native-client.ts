/** One agent with all EIDs, over the map server's own transport: a Map-Register for each EID in one session. */
import { execFileSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import WebSocket from 'ws';
import { parseIpAddress } from '../../proto/address.ts';
import { CAPABILITY } from '../../proto/capability.ts';
import { DEFAULT_INSTANCE, prefixEid } from '../../proto/eid.ts';
import { agentAddressOf, parseTunnelKey, xtrIdOf } from '../../proto/identity.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { encodeLispMessage } from '../../proto/lisp/message.ts';
import { lookupRequest, mapRegister } from '../../proto/lisp/native.ts';
import type { Generation, TunnelKey } from '../../proto/mapping.ts';
import { minutes } from '../../proto/time.ts';
import { callApi } from '../../runtime/http-api.ts';
import { BenchError } from '../bench-error.ts';
import { benchEid } from './eids.ts';
import type { LoadClient, LoadKind } from './load-client.ts';
import { type BenchMapServer, EID_SPACE } from './server.ts';

export class NativeClient implements LoadClient {
  onAnswer: (nonce: bigint) => void = () => {};
  readonly prefixes: number;
  private readonly socket: WebSocket;
  private readonly tunnelKey: TunnelKey;
  private lastNonce = 0n;

  private constructor(socket: WebSocket, tunnelKey: TunnelKey, prefixes: number) {
    this.socket = socket;
    this.tunnelKey = tunnelKey;
    this.prefixes = prefixes;
    socket.on('message', (data, isBinary) => {
      if (isBinary) this.onAnswer((data as Buffer).readBigUInt64BE(4));
    });
  }

  static async open(server: BenchMapServer, prefixes: number): Promise<NativeClient> {
    const target = { host: '127.0.0.1', port: server.port };
    const { ca } = (await callApi(target, 'GET', '/v1/ca')) as { ca: string };
    const { token } = (await server.admin('POST', '/v1/tokens', { eids: [EID_SPACE] })) as { token: string };
    const { x } = generateKeyPairSync('x25519').publicKey.export({ format: 'jwk' });
    const tunnelKey = parseTunnelKey(Buffer.from(x ?? '', 'base64url').toString('base64'));
    const key = join(server.dir, 'bench.key');
    const request = ['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    const csr = execFileSync('openssl', [...request, '-keyout', key, '-subj', '/CN=bench'], { stdio: 'pipe' });
    const body = { token, csr: csr.toString(), tunnelKey, eids: [EID_SPACE], names: [], software: 'stayput-bench' };
    const { certificate } = (await callApi({ ...target, ca }, 'POST', '/v1/enrol', { body })) as {
      certificate: string;
    };
    const socket = new WebSocket(`wss://127.0.0.1:${server.port}/lisp`, 'lisp.stayput', {
      ca,
      cert: certificate,
      key: readFileSync(key),
      minVersion: 'TLSv1.3',
      perMessageDeflate: false,
      headers: { 'stayput-capability': String(CAPABILITY) },
    });
    const client = new NativeClient(socket, tunnelKey, prefixes);
    await new Promise<void>((resolve, reject) => {
      // The welcome.
      socket.once('message', () => resolve());
      socket.once('error', (cause) => reject(new BenchError(`the session: ${cause.message}`, { cause })));
    });
    const alive = setInterval(() => socket.ping(), 1_000);
    socket.on('close', () => clearInterval(alive));
    return client;
  }

  send(kind: LoadKind, index: number): bigint {
    const used = nonce(++this.lastNonce);
    const { tunnelKey } = this;
    const eid = prefixEid(DEFAULT_INSTANCE, benchEid(index));
    if (kind === 'request') {
      this.socket.send(encodeLispMessage(lookupRequest({ nonce: used, eid, itr: agentAddressOf(tunnelKey) })));
      return used;
    }
    const mapping = {
      eid,
      ttl: minutes(3),
      action: 'no-action' as const,
      generation: (kind === 'register' ? 0 : 1) as Generation,
      owner: xtrIdOf(tunnelKey),
      tunnelKey,
      locators: [{ address: parseIpAddress('192.0.2.1'), port: 4341, priority: 1, weight: 100 }],
      names: [],
      targets: [],
    };
    const message = mapRegister({ nonce: used, xtrId: xtrIdOf(tunnelKey), mappings: [mapping] });
    this.socket.send(encodeLispMessage(message));
    return used;
  }

  close(): void {
    this.socket.terminate();
  }
}
