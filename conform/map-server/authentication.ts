/** Who may register (RFC 9301 5.6, 8.2, 9): codes, keys, algorithms, prefixes; and nonces that only grow. */
import { type Check, demand, group } from '../check.ts';
import { describeAnswer } from '../lisp/answers.ts';
import { codeLengths, type SiteKey } from '../lisp/message-code.ts';
import { AUTHENTICATION_OFFSET, altered, ip, locator, type Octets, u8 } from '../lisp/octets.ts';
import type { RegisterChange } from './etr.ts';
import type { MapServerStage } from './stage.ts';

type Draft = Omit<Check<MapServerStage>, 'id'>;

export function authenticationChecks(): readonly Check<MapServerStage>[] {
  return group('MS-AUTH', [
    ...ACCEPTED.map(acceptedCheck),
    ...TAMPERED.map(tamperedCheck),
    ...FOREIGN_KEYS.map(foreignKeyCheck),
    ...CODE_LENGTHS.map(codeLengthCheck),
    ...FOREIGN_PREFIXES.map(foreignPrefixCheck),
  ]);
}

export function replayChecks(): readonly Check<MapServerStage>[] {
  return group('MS-REPLAY', REPLAYS);
}

/** @throws Deviation when it is answered by a Map-Notify, or when the EID is registered by it */
async function refused(stage: MapServerStage, octets: Octets, eid: Octets, what: string): Promise<string> {
  const seen = await stage.unanswered(octets, what);
  demand(!(await stage.isRegistered(eid)), `Nothing came back for ${what}, but its EID is registered.`);
  return `${seen} Its EID is not registered.`;
}

interface Accepted {
  readonly what: string;
  readonly level: Check<MapServerStage>['level'];
  readonly change: (key: SiteKey) => RegisterChange;
}

/** Stimuli: codes as deployed implementations make them. */
const ACCEPTED: readonly Accepted[] = [
  { what: 'a code of the RFC’s length over the records', level: 'MUST', change: () => ({}) },
  {
    what: 'the whole digest over the records',
    level: 'interop',
    change: ({ algorithm }) => ({ codeLength: codeLengths(algorithm).whole }),
  },
  {
    what: 'a code of the RFC’s length over the whole payload',
    level: 'interop',
    change: () => ({ covers: 'payload' }),
  },
  {
    what: 'the whole digest over the whole payload, as lispers.net and OOR send it',
    level: 'interop',
    change: ({ algorithm }) => ({ covers: 'payload', codeLength: codeLengths(algorithm).whole }),
  },
];

function acceptedCheck({ what, level, change }: Accepted): Draft {
  return {
    level,
    source: 'RFC 9301 5.6',
    title: `A Map-Register with ${what} is accepted`,
    sent: `A Map-Register with ${what}.`,
    expected: 'A Map-Notify.',
    run: async (stage) => {
      const { notify } = await stage.etr().register([{ eid: ip(stage.block.v4(1)) }], change(stage.key));
      return `${describeAnswer(notify)} with a code of ${notify.authentication.length} octets.`;
    },
  };
}

interface Tampered {
  readonly what: string;
  /** From the start; from the end if negative, behind the code if `behindCode`. */
  readonly at: number;
  readonly behindCode?: boolean;
  readonly bit?: number;
  /** Believed, it would leave the xTR-ID with a nonce that is hard to surpass. */
  readonly ahead?: boolean;
}

/** Stimuli: one bit is changed after the code was made. Offsets behind the code are those of the first record. */
const TAMPERED: readonly Tampered[] = [
  { what: 'the proxy bit', at: 0, bit: 0x08 },
  { what: 'a reserved bit of the header', at: 1, bit: 0x80 },
  { what: 'the merge bit', at: 2, bit: 0x04 },
  { what: 'the first octet of the nonce', at: 4, bit: 0x40, ahead: true },
  { what: 'the last octet of the nonce', at: 11 },
  { what: 'the first octet of the code', at: AUTHENTICATION_OFFSET },
  { what: 'an octet in the middle of the code', at: AUTHENTICATION_OFFSET + 6 },
  { what: 'the last octet of the RFC’s length of the code', at: AUTHENTICATION_OFFSET + 11 },
  { what: 'the TTL of the record', at: 3, behindCode: true },
  { what: 'the mask length', at: 5, behindCode: true },
  { what: 'the action', at: 6, behindCode: true, bit: 0x20 },
  { what: 'the map version', at: 9, behindCode: true },
  { what: 'the third octet of the EID', at: 14, behindCode: true },
  { what: 'the last octet of the EID', at: 15, behindCode: true },
  { what: 'the priority of the locator', at: 16, behindCode: true },
  { what: 'the weight of the locator', at: 17, behindCode: true },
  { what: 'the flags of the locator', at: 21, behindCode: true, bit: 0x04 },
  { what: 'the first octet of the locator', at: 24, behindCode: true },
  { what: 'the last octet of the locator', at: 27, behindCode: true },
];

function tamperedCheck({ what, at, behindCode = false, bit = 1, ahead = false }: Tampered): Draft {
  return {
    level: 'MUST',
    source: 'RFC 9301 5.6',
    title: `A Map-Register with one bit of ${what} changed is dropped`,
    sent: `A right Map-Register, one bit of ${what} changed on the way.`,
    expected: 'No answer, and no registration.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      const locators = [locator(ip('192.0.2.7'))];
      const xtr = ahead ? stage.subject.xtrs.named(what) : stage.xtr();
      const { octets } = stage.etr(xtr).message([{ eid, locators }]);
      const start = behindCode ? AUTHENTICATION_OFFSET + codeLengths(stage.key.algorithm).rfc : 0;
      const changed = altered(octets, (copy) => {
        copy[start + at] = (copy[start + at] ?? 0) ^ bit;
      });
      return refused(stage, changed, eid, `a Map-Register with a changed bit of ${what}`);
    },
  };
}

interface ForeignKey {
  readonly what: string;
  readonly key: (key: SiteKey) => SiteKey;
  readonly codeLength?: number;
}

/** Stimuli: codes that are right for something that is not the site's key. */
const FOREIGN_KEYS: readonly ForeignKey[] = [
  { what: 'another secret', key: (key) => ({ ...key, secret: Buffer.from('not the secret of this site') }) },
  { what: 'an empty secret', key: (key) => ({ ...key, secret: u8() }) },
  { what: 'the secret without its last octet', key: (key) => ({ ...key, secret: key.secret.subarray(0, -1) }) },
  {
    what: 'two octets more than the secret',
    key: (key) => ({ ...key, secret: Buffer.concat([key.secret, u8(0, 1)]) }),
  },
  { what: 'the secret in capitals', key: (key) => ({ ...key, secret: capitals(key.secret) }) },
  { what: 'an unknown key ID', key: (key) => ({ ...key, keyId: (key.keyId + 101) & 0xff }) },
  { what: 'algorithm 0 and an empty code', key: (key) => ({ ...key, algorithm: 0 }), codeLength: 0 },
  { what: 'algorithm 0 and a code', key: (key) => ({ ...key, algorithm: 0 }) },
  { what: 'the unassigned algorithm 4', key: (key) => ({ ...key, algorithm: 4 }) },
  { what: 'the unassigned algorithm 255', key: (key) => ({ ...key, algorithm: 255 }) },
];

function foreignKeyCheck({ what, key, codeLength }: ForeignKey): Draft {
  return {
    level: 'MUST',
    source: 'RFC 9301 8.2',
    title: `A Map-Register made with ${what} is dropped`,
    sent: `A Map-Register whose code is made with ${what}.`,
    expected: 'No answer, and no registration.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      const change = codeLength === undefined ? {} : { codeLength };
      const { octets } = stage.etr().message([{ eid }], { key: key(stage.key), ...change });
      return refused(stage, octets, eid, `a Map-Register with ${what}`);
    },
  };
}

/** Stimuli: codes that are a right beginning, but not of a length that the algorithm has. */
const CODE_LENGTHS: readonly number[] = [0, 1, 4, 8, 11];

function codeLengthCheck(codeLength: number): Draft {
  return {
    level: 'MUST',
    source: 'RFC 9301 5.6',
    title: `A code of ${codeLength} octets proves nothing`,
    sent: `A Map-Register with only the first ${codeLength} octets of a right code.`,
    expected: 'No answer, and no registration.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      const { octets } = stage.etr().message([{ eid }], { codeLength });
      return refused(stage, octets, eid, `a code of ${codeLength} octets`);
    },
  };
}

interface ForeignPrefix {
  readonly what: string;
  readonly eid: (stage: MapServerStage) => Octets;
  readonly maskLength?: number;
}

/** Stimuli: right codes for EIDs that are not the site's. What a target takes by mistake is withdrawn at the end. */
const FOREIGN_PREFIXES: readonly ForeignPrefix[] = [
  { what: 'an IPv4 host outside the site', eid: ({ outside }) => ip(outside.v4(1)) },
  { what: 'an IPv6 host outside the site', eid: ({ outside }) => ip(outside.v6(1)) },
  { what: 'an IPv4 prefix outside the site', eid: ({ outside }) => ip(outside.v4(0)), maskLength: 29 },
];

function foreignPrefixCheck({ what, eid, maskLength }: ForeignPrefix): Draft {
  return {
    level: 'MUST',
    source: 'RFC 9301 8.2',
    title: `${what[0]?.toUpperCase()}${what.slice(1)} cannot be registered with the site’s key`,
    sent: `A Map-Register with a right code for ${what}.`,
    expected: 'No registration.',
    run: async (stage) => {
      const foreign = eid(stage);
      const mask = maskLength === undefined ? {} : { maskLength };
      await stage.port.send(stage.etr().message([{ eid: foreign, ...mask }]).octets);
      await stage.fence();
      demand(!(await stage.isRegistered(foreign)), 'It is registered.');
      return 'It is not registered.';
    },
  };
}

const REPLAYS: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 9301 5.6',
    title: 'A Map-Register that was seen before is dropped',
    sent: 'A right Map-Register, confirmed, and the same octets again.',
    expected: 'No second answer.',
    run: async (stage) => {
      const { octets } = await stage.etr().register([{ eid: ip(stage.block.v4(1)) }]);
      return stage.unanswered(octets, 'the repetition');
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.6',
    title: 'A recorded Map-Register does not bring back what was withdrawn',
    sent: 'A right Map-Register, a withdrawal, the first again, then a Map-Request.',
    expected: 'A negative Map-Reply.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      const etr = stage.etr();
      const { octets } = await etr.register([{ eid }]);
      await etr.withdraw([{ eid }]);
      return refused(stage, octets, eid, 'the repetition');
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.6',
    title: 'A recorded withdrawal does not take away what was registered again',
    sent: 'A right Map-Register, a withdrawal, another Map-Register, the withdrawal again, then a Map-Request.',
    expected: 'A Map-Reply with locators.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      const etr = stage.etr();
      await etr.register([{ eid }]);
      const { octets } = await etr.withdraw([{ eid }]);
      await etr.register([{ eid }]);
      await stage.unanswered(octets, 'the recorded withdrawal');
      demand(await stage.isRegistered(eid), 'It is gone.');
      return 'It is still registered.';
    },
  },
  ...[1n, 2n, 1000n, 1n << 40n].map(
    (back): Draft => ({
      level: 'MUST',
      source: 'RFC 9301 5.6',
      title: `A nonce that is older by ${back} is dropped`,
      sent: `Two right Map-Registers of one ETR, the second with a nonce that is smaller by ${back}.`,
      expected: 'No answer to the second.',
      run: async (stage) => {
        const etr = stage.etr();
        const { nonce } = await etr.register([{ eid: ip(stage.block.v4(1)) }]);
        const { octets } = etr.message([{ eid: ip(stage.block.v4(2)) }], { nonce: nonce - back });
        return refused(stage, octets, ip(stage.block.v4(2)), 'an older nonce');
      },
    }),
  ),
  {
    level: 'MUST',
    source: 'RFC 9301 5.6',
    title: 'The same nonce with other contents is dropped',
    sent: 'Two right Map-Registers of one ETR with one nonce, for different EIDs.',
    expected: 'No answer to the second.',
    run: async (stage) => {
      const etr = stage.etr();
      const { nonce } = await etr.register([{ eid: ip(stage.block.v4(1)) }]);
      const { octets } = etr.message([{ eid: ip(stage.block.v4(2)) }], { nonce });
      return refused(stage, octets, ip(stage.block.v4(2)), 'the same nonce');
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.6',
    title: 'A repetition from another port is dropped as well',
    sent: 'A right Map-Register, and the same octets from another UDP port.',
    expected: 'No second answer.',
    run: async (stage) => {
      const { octets } = await stage.etr().register([{ eid: ip(stage.block.v4(1)) }]);
      return stage.unanswered(octets, 'the repetition', await stage.openPort());
    },
  },
  ...[1n, 2n, 1_000_000n, 1n << 32n].map(
    (ahead): Draft => ({
      level: 'MUST',
      source: 'RFC 9301 5.6',
      title: `A nonce that is larger by ${ahead} is accepted`,
      sent: `Two right Map-Registers of one ETR, the second with a nonce that is larger by ${ahead}.`,
      expected: 'Two Map-Notify messages.',
      run: async (stage) => {
        const etr = stage.etr(ahead < 1n << 32n ? stage.xtr() : stage.subject.xtrs.behind());
        const { nonce } = await etr.register([{ eid: ip(stage.block.v4(1)) }]);
        const { notify } = await etr.register([{ eid: ip(stage.block.v4(1)) }], { nonce: nonce + ahead });
        return `${describeAnswer(notify)}.`;
      },
    }),
  ),
  {
    level: 'MUST',
    source: 'RFC 9301 5.6',
    title: 'Each xTR-ID has nonces of its own',
    sent: 'A right Map-Register of one xTR-ID, then one of another xTR-ID with a smaller nonce.',
    expected: 'Two Map-Notify messages.',
    run: async (stage) => {
      const [larger, smaller] = [stage.xtr(), stage.xtr()];
      const nonce = smaller.nextNonce();
      larger.continueFrom(nonce);
      await stage.etr(larger).register([{ eid: ip(stage.block.v4(1)) }]);
      const { notify } = await stage.etr(smaller).register([{ eid: ip(stage.block.v4(2)) }], { nonce });
      return `${describeAnswer(notify)}.`;
    },
  },
];

function capitals(secret: Octets): Octets {
  const text = Buffer.from(secret).toString('latin1');
  const changed = text.toUpperCase() === text ? `${text}x` : text.toUpperCase();
  return Buffer.from(changed, 'latin1');
}
