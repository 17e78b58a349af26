/** Info-Request and Info-Reply of NAT traversal (draft-ietf-lisp-nat-traversal), which deployed Map-Servers answer. */
import { type Check, demand, group } from '../check.ts';
import { readAddressAt } from '../lisp/answers.ts';
import { codeLengths, seal } from '../lisp/message-code.ts';
import { randomNonce } from '../lisp/nonces.ts';
import { distinguishedName, ip, join, NO_ADDRESS, type Octets, TYPE, u8, u16, u32, u64 } from '../lisp/octets.ts';
import type { MapServerStage } from './stage.ts';

type Draft = Omit<Check<MapServerStage>, 'id'>;

export function infoChecks(): readonly Check<MapServerStage>[] {
  return group('MS-INFO', INFO);
}

interface InfoReply {
  readonly octets: Octets;
  /** Body of the LCAF 7. */
  readonly body: Octets;
}

const INFO: readonly Draft[] = [
  {
    level: 'interop',
    source: 'draft-ietf-lisp-nat-traversal',
    title: 'An Info-Request with the site’s key is answered',
    sent: 'An Info-Request authenticated with the key of the site.',
    expected: 'An Info-Reply with the same nonce and R=1.',
    run: async (stage) => {
      const { octets } = await infoReply(stage);
      demand(((octets[0] ?? 0) & 0x08) !== 0, 'R=0.');
      return `An Info-Reply of ${octets.length} octets.`;
    },
  },
  {
    level: 'interop',
    source: 'draft-ietf-lisp-nat-traversal',
    title: 'An Info-Reply tells the port that the request came from',
    sent: 'An Info-Request authenticated with the key of the site.',
    expected: 'An Info-Reply whose NAT LCAF has this UDP port as the ETR’s.',
    run: async (stage) => {
      const { body } = await infoReply(stage);
      const port = ((body[2] ?? 0) << 8) | (body[3] ?? 0);
      demand(port === stage.port.port, `Port ${port}, sent from ${stage.port.port}.`);
      return `Port ${port}.`;
    },
  },
  {
    level: 'interop',
    source: 'draft-ietf-lisp-nat-traversal',
    title: 'An Info-Reply tells the address that the request came from',
    sent: 'An Info-Request authenticated with the key of the site.',
    expected: 'An Info-Reply whose NAT LCAF has an address as the global RLOC of the ETR.',
    run: async (stage) => {
      const { body } = await infoReply(stage);
      const { address } = readAddressAt(body, 4);
      demand(address.afi === 1 || address.afi === 2, `An address of AFI ${address.afi}.`);
      return `${address.text}, sent from ${stage.subject.local}.`;
    },
  },
  {
    level: 'MUST',
    source: 'draft-ietf-lisp-nat-traversal',
    title: 'An Info-Request with a wrong code is dropped',
    sent: 'An Info-Request whose code is made with another secret.',
    expected: 'No answer.',
    run: (stage) => {
      const { octets } = infoRequest(stage, Buffer.from('not the secret of this site'));
      return stage.unanswered(octets, 'the Info-Request');
    },
  },
  {
    level: 'MUST',
    source: 'draft-ietf-lisp-nat-traversal',
    title: 'An Info-Reply that nobody asked for is dropped',
    sent: 'A message of type 7 with R=1.',
    expected: 'No answer.',
    run: (stage) => {
      const { octets } = infoRequest(stage, stage.key.secret);
      octets[0] = (TYPE.info << 4) | 0x08;
      return stage.unanswered(octets, 'the Info-Reply');
    },
  },
  {
    level: 'MUST',
    source: 'draft-farinacci-lisp-lispers-net-nat',
    title: 'An Info-Request without a code is not answered with more octets than it has four times',
    sent: 'An Info-Request without authentication, as lispers.net sends it.',
    expected: 'No answer, or a short one, so that nobody is flooded in another’s name.',
    run: async (stage) => {
      const nonce = randomNonce();
      const octets = join(
        u32(0x7000_0000),
        u64(nonce),
        u32(0),
        u32(0),
        u8(0, 0),
        distinguishedName('conform'),
        NO_ADDRESS,
      );
      await stage.port.send(octets);
      await stage.fence();
      const answer = await stage.port.wait(
        (datagram) => ((datagram.octets[0] ?? 0) >>> 4 === TYPE.info ? datagram.octets : undefined),
        0,
      );
      demand((answer?.length ?? 0) <= 4 * octets.length, `${answer?.length} octets for ${octets.length}.`);
      return answer === undefined ? 'No answer.' : `${answer.length} octets for ${octets.length}.`;
    },
  },
];

function infoRequest(stage: MapServerStage, secret: Octets): { readonly octets: Octets; readonly nonce: bigint } {
  const { keyId, algorithm } = stage.key;
  const nonce = randomNonce();
  const { rfc } = codeLengths(algorithm);
  const plain = join(
    u32((TYPE.info << 28) >>> 0),
    u64(nonce),
    u8(keyId, algorithm),
    u16(rfc),
    new Uint8Array(rfc),
    u32(1440),
    u8(0, 32),
    ip(stage.block.v4(1)),
    NO_ADDRESS,
  );
  return { nonce, octets: seal(plain, { keyId, algorithm, secret }) };
}

async function infoReply(stage: MapServerStage): Promise<InfoReply> {
  for (let turn = 0; turn < 3; turn++) {
    const { octets, nonce } = infoRequest(stage, stage.key.secret);
    await stage.port.send(octets);
    const reply = await stage.port.wait((datagram) => {
      const { octets: came } = datagram;
      if ((came[0] ?? 0) >>> 4 !== TYPE.info || came.length < 16) return undefined;
      return new DataView(came.buffer, came.byteOffset).getBigUint64(4) === nonce ? came : undefined;
    }, stage.subject.answerMs);
    if (reply !== undefined) return { octets: reply, body: natBody(reply) };
  }
  demand(false, 'No Info-Reply.');
}

function natBody(reply: Octets): Octets {
  const codeEnd = 16 + (((reply[14] ?? 0) << 8) | (reply[15] ?? 0));
  const { end } = readAddressAt(reply, codeEnd + 6);
  const { address } = readAddressAt(reply, end);
  demand(address.octets[0] === 0x40 && address.octets[4] === 7, 'No LCAF of type 7 behind the EID.');
  return address.octets.subarray(8);
}
