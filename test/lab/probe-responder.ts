/** `node probe-responder.js RLOC`: a router's answers to RLOC-probes on UDP 4342 of this address (RFC 9301 section 7.1), no more. */
import { createSocket } from 'node:dgram';
import { argv } from 'node:process';
import { parseIpAddress } from '../../proto/address.ts';
import { ipLispAddress } from '../../proto/lisp/afi.ts';
import { decodeLispMessage, encodeLispMessage } from '../../proto/lisp/message.ts';

const rloc = argv[2] ?? '';
const socket = createSocket('udp4');
socket.on('message', (bytes, from) => {
  const request = decodeLispMessage(bytes);
  if (request.type !== 'map-request' || !request.probe) return;
  const records = request.records.map(({ eid, maskLength }) => ({
    ...{ eid, maskLength, ttl: 1, action: 0, authoritative: true, mapVersion: 0 },
    locators: [
      {
        ...{ priority: 1, weight: 100, multicastPriority: 255, multicastWeight: 0 },
        ...{ local: true, probed: true, reachable: true, locator: ipLispAddress(parseIpAddress(rloc)) },
      },
    ],
  }));
  const { nonce } = request;
  const reply = encodeLispMessage({ type: 'map-reply', probe: true, echoNonce: false, nonce, records });
  socket.send(reply, from.port, from.address);
});
socket.bind(4342, rloc, () => console.log('ready'));
