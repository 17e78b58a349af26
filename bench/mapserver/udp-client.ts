/** Many sites of one router each, over UDP: a Map-Register for each EID, signed with HMAC-SHA-256-128. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { parseIpAddress, prefixAddress } from '../../proto/address.ts';
import { DEFAULT_INSTANCE, prefixEid } from '../../proto/eid.ts';
import { xtrIdFromBytes } from '../../proto/identity.ts';
import { ipLispAddress } from '../../proto/lisp/afi.ts';
import { signMessage } from '../../proto/lisp/authentication.ts';
import { NO_AUTHENTICATION } from '../../proto/lisp/authentication-data.ts';
import { nonce } from '../../proto/lisp/header.ts';
import { MAP_REGISTER, type MapRegister } from '../../proto/lisp/map-register.ts';
import { eidToRecordKey } from '../../proto/lisp/mapping-record.ts';
import { encodeLispMessage } from '../../proto/lisp/message.ts';
import { lookupRequest } from '../../proto/lisp/native.ts';
import { benchEid } from './eids.ts';
import type { LoadClient, LoadKind } from './load-client.ts';
import type { BenchMapServer } from './server.ts';

export class UdpClient implements LoadClient {
  onAnswer: (nonce: bigint) => void = () => {};
  readonly prefixes: number;
  private readonly socket: Socket;
  private readonly port: number;
  private lastNonce = 0n;

  private constructor(socket: Socket, port: number, prefixes: number) {
    this.socket = socket;
    this.port = port;
    this.prefixes = prefixes;
    // The nonce is behind the first word of each message.
    socket.on('message', (bytes) => this.onAnswer(bytes.readBigUInt64BE(4)));
  }

  static async open(server: BenchMapServer, prefixes: number): Promise<UdpClient> {
    for (let site = 0; site * EIDS_PER_SITE < prefixes; site++) {
      const prefix = `${prefixAddress(benchEid(site * EIDS_PER_SITE))}/25`;
      const keys = [{ keyId: 0, secret: SECRET.toString('base64') }];
      await server.admin('POST', '/v1/sites', {
        name: `site${site}`,
        prefixes: [{ prefix, moreSpecifics: true }],
        keys,
      });
    }
    const socket = createSocket('udp4');
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    return new UdpClient(socket, server.port, prefixes);
  }

  send(kind: LoadKind, index: number): bigint {
    const used = nonce(++this.lastNonce);
    const eid = prefixEid(DEFAULT_INSTANCE, benchEid(index));
    if (kind === 'request') {
      this.transmit(encodeLispMessage(lookupRequest({ nonce: used, eid, itr: OWN })));
      return used;
    }
    const locator = ipLispAddress(parseIpAddress('192.0.2.1'));
    const message: MapRegister = {
      ...MAP_REGISTER,
      nonce: used,
      authentication: NO_AUTHENTICATION,
      records: [
        {
          ...eidToRecordKey(eid),
          ttl: 3,
          action: 0,
          authoritative: true,
          mapVersion: 0,
          locators: [{ ...RLOC, locator }],
        },
      ],
      xtrId: XTR_ID,
      siteId: 0n,
    };
    this.transmit(signMessage(message, { keyId: 0, algorithm: 2, psk: SECRET }));
    return used;
  }

  close(): void {
    this.socket.close();
  }

  private transmit(bytes: Uint8Array): void {
    this.socket.send(bytes, this.port, '127.0.0.1');
  }
}

const OWN = parseIpAddress('127.0.0.1');
const SECRET = Buffer.from('a secret of all sites');
const XTR_ID = xtrIdFromBytes(new Uint8Array(16).fill(1));
/** A /25. */
const EIDS_PER_SITE = 128;
const RLOC = {
  priority: 1,
  weight: 100,
  multicastPriority: 255,
  multicastWeight: 0,
  local: true,
  probed: false,
  reachable: true,
};
