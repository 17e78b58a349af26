/**
 * A program, run on the host of the correspondents: enrols many agents at the map server, each with a tunnel key of its
 * own, and registers for each an EID and its agent address over a session of its own. Then the sessions end; the map
 * server keeps the mappings for its grace period.
 *
 * `enrol-correspondents.js CONFIG`: a JSON object as `Enrolment`. Writes `Enrolled` to its `out`.
 */
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import WebSocket from 'ws';
import { hostPrefix, parseIpAddress } from '../../proto/address.ts';
import { CAPABILITY } from '../../proto/capability.ts';
import { DEFAULT_INSTANCE, prefixEid } from '../../proto/eid.ts';
import { agentAddressOf, parseTunnelKey, xtrIdOf } from '../../proto/identity.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { encodeLispMessage } from '../../proto/lisp/message.ts';
import { mapRegister } from '../../proto/lisp/native.ts';
import type { Generation, Mapping } from '../../proto/mapping.ts';
import { minutes } from '../../proto/time.ts';
import { callApi } from '../../runtime/http-api.ts';

export interface Enrolment {
  readonly mapServer: { readonly host: string; readonly port: number };
  readonly ca: string;
  readonly token: string;
  /** One certificate key serves all: it says who speaks to the map server, which nobody does any more afterwards. */
  readonly tlsKey: string;
  readonly csr: string;
  readonly port: number;
  readonly correspondents: readonly { readonly eid: string; readonly address: string }[];
  readonly out: string;
}

export interface Enrolled {
  /** Base64. */
  readonly presharedKey: string;
  readonly instance: number;
  readonly correspondents: readonly { readonly privateKey: string; readonly eid: string; readonly address: string }[];
}

interface EnrolAnswer {
  readonly certificate: string;
  readonly presharedKey: string;
  readonly instance: number;
}

const AT_ONCE = 16;
const ANSWER_MS = 10_000;

const config = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')) as Enrolment;
const todo = [...config.correspondents];
const done: Enrolled['correspondents'][number][] = [];
let common: EnrolAnswer | undefined;
await Promise.all(
  Array.from({ length: AT_ONCE }, async () => {
    for (let next = todo.pop(); next !== undefined; next = todo.pop()) done.push(await enrol(next));
  }),
);
if (common !== undefined) {
  const { presharedKey, instance } = common as EnrolAnswer;
  writeFileSync(config.out, JSON.stringify({ presharedKey, instance, correspondents: done } satisfies Enrolled));
}

async function enrol(own: Enrolment['correspondents'][number]): Promise<Enrolled['correspondents'][number]> {
  const { d, x } = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' });
  const tunnelKey = parseTunnelKey(Buffer.from(x ?? '', 'base64url').toString('base64'));
  const { mapServer, ca, token, csr } = config;
  const eids = [hostPrefix(parseIpAddress(own.eid))];
  const body = { token, csr, tunnelKey, eids, names: [], software: 'stayput-bench' };
  const answer = (await callApi({ ...mapServer, ca }, 'POST', '/v1/enrol', { body })) as EnrolAnswer;
  common = answer;
  const addresses = [parseIpAddress(own.eid), agentAddressOf(tunnelKey)];
  const mappings = addresses.map((address): Mapping => {
    return {
      eid: prefixEid(DEFAULT_INSTANCE, hostPrefix(address)),
      ttl: minutes(60),
      action: 'no-action',
      generation: 0 as Generation,
      owner: xtrIdOf(tunnelKey),
      tunnelKey,
      locators: [{ address: parseIpAddress(own.address), port: config.port, priority: 1, weight: 100 }],
      names: [],
      targets: [],
    };
  });
  const message = mapRegister({ nonce: nonce(1n), xtrId: xtrIdOf(tunnelKey), mappings });
  await register(answer.certificate, encodeLispMessage(message));
  return { ...own, privateKey: Buffer.from(d ?? '', 'base64url').toString('base64') };
}

/** One session: welcome, Map-Register, Map-Notify. */
function register(certificate: string, message: Uint8Array): Promise<void> {
  const { host, port } = config.mapServer;
  const socket = new WebSocket(`wss://${host}:${port}/lisp`, 'lisp.stayput', {
    ca: config.ca,
    cert: certificate,
    key: config.tlsKey,
    minVersion: 'TLSv1.3',
    perMessageDeflate: false,
    handshakeTimeout: ANSWER_MS,
    headers: { 'stayput-capability': String(CAPABILITY) },
  });
  return new Promise((resolve, reject) => {
    socket.on('message', (_data, isBinary) => {
      if (!isBinary) return socket.send(message);
      socket.close(1000);
      resolve();
    });
    socket.on('error', reject);
    socket.on('close', (code, reason) => reject(new Error(`closed: ${code} ${reason.toString('utf8')}`)));
  });
}
