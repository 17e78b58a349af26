/** Map-Register and Map-Notify (RFC 9301 5.6, 5.7, 8.2): what is registered is confirmed, kept, replaced and withdrawn. */
import { type Check, demand, group } from '../check.ts';
import { describeAnswer, describeRecord } from '../lisp/answers.ts';
import { codeCovers } from '../lisp/message-code.ts';
import { ip, locator, type Octets, REGISTER, u8 } from '../lisp/octets.ts';
import { acknowledgement, PROXY_NOTIFY } from './etr.ts';
import { RECORD_FORMS, registered } from './record-forms.ts';
import type { MapServerStage } from './stage.ts';

type Draft = Omit<Check<MapServerStage>, 'id'>;

export function registrationChecks(): readonly Check<MapServerStage>[] {
  return group('MS-REG', [...NOTIFY, ...RECORD_FORMS, ...LIFE, ...MERGE]);
}

const NOTIFY: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 9301 5.7',
    title: 'A Map-Register that wants a Map-Notify gets one',
    sent: 'A right Map-Register for one IPv4 host, with M=1.',
    expected: 'A Map-Notify with the same nonce.',
    run: async (stage) => `${describeAnswer((await registered(stage)).notify)} with the nonce of the Map-Register.`,
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.7',
    title: 'A Map-Notify is authenticated with the key of the site',
    sent: 'A right Map-Register with M=1.',
    expected: 'A Map-Notify whose code is right for the site’s key, over the records or over the whole payload.',
    run: async (stage) => {
      const { notify } = await registered(stage);
      const covered = codeCovers(notify, stage.key);
      demand(covered !== 'nothing', `A code of ${notify.authentication.length} octets that is not the key’s.`);
      return `A right code of ${notify.authentication.length} octets over the ${covered}.`;
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.7',
    title: 'A Map-Notify names the key and the algorithm of the Map-Register',
    sent: 'A right Map-Register with M=1.',
    expected: 'The same key ID and algorithm ID in the Map-Notify.',
    run: async (stage) => {
      const { notify } = await registered(stage);
      const said = `key ${notify.keyId}, algorithm ${notify.algorithm}`;
      demand(notify.keyId === stage.key.keyId && notify.algorithm === stage.key.algorithm, `It says ${said}.`);
      return `It says ${said}.`;
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.7',
    title: 'A Map-Notify tells the EID that was registered',
    sent: 'A right Map-Register for one EID.',
    expected: 'A Map-Notify with one record, of the same EID and mask length.',
    run: async (stage) => {
      const { notify } = await registered(stage);
      const [first, ...more] = notify.records;
      demand(first !== undefined && more.length === 0, `${notify.records.length} records.`);
      demand(first.eid.text === stage.block.v4(1) && first.maskLength === 32, describeRecord(first));
      return describeRecord(first);
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.7',
    title: 'A Map-Notify tells the locators that were registered',
    sent: 'A right Map-Register with two locators.',
    expected: 'A Map-Notify with the same two, with priorities and weights.',
    run: async (stage) => {
      const locators = [locator(ip(stage.subject.local)), locator(ip('192.0.2.77'), { priority: 2, weight: 30 })];
      const { notify } = await registered(stage, { locators });
      const said = notify.records[0]?.locators ?? [];
      const second = said.find(({ address }) => address.text === '192.0.2.77');
      const right = said.length === 2 && second?.priority === 2 && second.weight === 30;
      demand(right, describeAnswer(notify));
      return describeAnswer(notify);
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.7',
    title: 'A Map-Notify comes from the address and port that were registered with',
    sent: 'A right Map-Register.',
    expected: 'A Map-Notify from the address and port of the target.',
    run: async (stage) => {
      const { nonce } = await registered(stage);
      const from = stage.port.inbox.find(({ octets }) => octets.length > 12 && nonceOf(octets) === nonce);
      const { address, port } = stage.subject.target;
      demand(from?.address === address && from.port === port, `It came from ${from?.address} port ${from?.port}.`);
      return `It came from ${from.address} port ${from.port}.`;
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.6',
    title: 'Without M there is no Map-Notify',
    sent: 'A right Map-Register with M=0.',
    expected: 'No answer.',
    run: async (stage) => {
      const { octets } = stage.etr().message([{ eid: ip(stage.block.v4(1)) }], { flags: REGISTER.P });
      return stage.unanswered(octets, 'a Map-Register without M');
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.6',
    title: 'Without M it is registered all the same',
    sent: 'A right Map-Register with M=0, then a Map-Request for its EID.',
    expected: 'A Map-Reply with the locator.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      await stage.port.send(stage.etr().message([{ eid }], { flags: REGISTER.P }).octets);
      await stage.fence();
      demand(await stage.isRegistered(eid), 'The Map-Reply is negative.');
      return 'The Map-Reply has locators.';
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.6',
    title: 'A Map-Register without an xTR-ID is accepted',
    sent: 'A right Map-Register with I=0 and no trailer.',
    expected: 'A Map-Notify.',
    run: async (stage) => {
      const records = [{ eid: ip(stage.block.v4(1)) }];
      return `${describeAnswer((await stage.etr().register(records, { trailer: u8() })).notify)}.`;
    },
  },
  {
    level: 'interop',
    source: 'RFC 9301 5.7',
    title: 'A Map-Notify fits into a datagram that is never split',
    sent: 'A right Map-Register with one EID.',
    expected: 'A Map-Notify of at most 576 octets.',
    run: async (stage) => {
      const { notify } = await registered(stage);
      demand(notify.octets.length <= 576, `${notify.octets.length} octets.`);
      return `${notify.octets.length} octets.`;
    },
  },
];

const LIFE: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 9301 5.4',
    title: 'A record with TTL 0 withdraws',
    sent: 'A right Map-Register, another with TTL 0, then a Map-Request.',
    expected: 'A negative Map-Reply.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      const etr = stage.etr();
      await etr.register([{ eid }]);
      await etr.withdraw([{ eid }]);
      demand(!(await stage.isRegistered(eid)), 'The Map-Reply still has locators.');
      return 'The Map-Reply is negative.';
    },
  },
  {
    level: 'interop',
    source: 'RFC 9301 5.6',
    title: 'A record without locators withdraws',
    sent: 'A right Map-Register, another without locators, then a Map-Request.',
    expected: 'A negative Map-Reply.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      const etr = stage.etr();
      await etr.register([{ eid }]);
      await etr.register([{ eid, locators: [] }]);
      demand(!(await stage.isRegistered(eid)), 'The Map-Reply still has locators.');
      return 'The Map-Reply is negative.';
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 8.2',
    title: 'A later registration replaces the locators of the one before',
    sent: 'Two right Map-Registers of one ETR with different locators, then a Map-Request.',
    expected: 'A Map-Reply with the locator of the second only.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      const etr = stage.etr();
      await etr.register([{ eid, locators: [locator(ip('192.0.2.7'))] }]);
      await etr.register([{ eid, locators: [locator(ip('192.0.2.8'))] }]);
      const answer = await stage.reply(eid);
      const said = answer.records[0]?.locators.map(({ address }) => address.text).join(' ');
      demand(said === '192.0.2.8', describeAnswer(answer));
      return describeAnswer(answer);
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 8.2',
    title: 'Withdrawing one EID leaves another of the same ETR',
    sent: 'A right Map-Register of two EIDs, the withdrawal of one, then a Map-Request for the other.',
    expected: 'A Map-Reply with locators.',
    run: async (stage) => {
      const [one, other] = [ip(stage.block.v4(1)), ip(stage.block.v4(2))];
      const etr = stage.etr();
      await etr.register([{ eid: one }, { eid: other }]);
      await etr.withdraw([{ eid: one }]);
      demand(await stage.isRegistered(other), 'The other is gone as well.');
      return 'The other is still registered.';
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 8.2',
    title: 'Withdrawing what was never registered is harmless',
    sent: 'A right Map-Register with TTL 0 for an EID that is not registered.',
    expected: 'The target goes on to answer.',
    run: async (stage) => {
      const { octets } = stage.etr().message([{ eid: ip(stage.block.v4(1)), ttl: 0 }]);
      await stage.port.send(octets);
      await stage.fence();
      return 'It goes on to answer.';
    },
  },
  {
    level: 'SHOULD',
    source: 'RFC 9301 8.2',
    title: 'A registration of a site’s second ETR takes effect at once',
    sent: 'Map-Registers of the same EID by two ETRs (without merging), then a Map-Request.',
    expected: 'A Map-Reply with the locator of the second, as after a move.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      await stage.etr().register([{ eid, locators: [locator(ip('192.0.2.7'))] }]);
      await stage.etr().register([{ eid, locators: [locator(ip('192.0.2.8'))] }]);
      const answer = await stage.reply(eid);
      demand(
        answer.records[0]?.locators.some(({ address }) => address.text === '192.0.2.8') === true,
        describeAnswer(answer),
      );
      return describeAnswer(answer);
    },
  },
];

const MERGING = PROXY_NOTIFY | REGISTER.a;

const MERGE: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 9301 5.6',
    title: 'Registrations with a=1 are merged',
    sent: 'Map-Registers with a=1 of two xTR-IDs for one EID, with a locator each, then a Map-Request.',
    expected: 'A Map-Reply with both locators.',
    run: async (stage) => {
      const { eid } = await merged(stage);
      const answer = await stage.reply(eid);
      const said = answer.records[0]?.locators
        .map(({ address }) => address.text)
        .sort()
        .join(' ');
      demand(said === '192.0.2.7 192.0.2.8', describeAnswer(answer));
      return describeAnswer(answer);
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.7',
    title: 'The Map-Notify of a merged registration tells the merged set',
    sent: 'Map-Registers with a=1 of two xTR-IDs for one EID.',
    expected: 'A Map-Notify to the second with both locators.',
    run: async (stage) => {
      const { notify } = await merged(stage);
      demand(notify.records[0]?.locators.length === 2, describeAnswer(notify));
      return describeAnswer(notify);
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.7',
    title: 'The first of two merged ETRs is told of the second',
    sent: 'Map-Registers with a=1 of two xTR-IDs for one EID, the first from UDP port 4342.',
    expected: 'A Map-Notify with both locators to port 4342 of the first.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      const first = await stage.lispPort();
      await stage.etr().register([{ eid, locators: [locator(ip('192.0.2.7'))] }], { flags: MERGING, on: first });
      const before = first.inbox.length;
      await stage.etr().register([{ eid, locators: [locator(ip('192.0.2.8'))] }], { flags: MERGING });
      const told = await first.wait((datagram) => stage.notification(datagram), stage.subject.answerMs, before);
      demand(told !== undefined, 'Nothing came to the first.');
      await first.send(acknowledgement(told, stage.key));
      return `A Map-Notify of ${told.octets.length} octets came to the first.`;
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.6',
    title: 'When one of two merged ETRs withdraws, the other stays',
    sent: 'Map-Registers with a=1 of two xTR-IDs for one EID, the withdrawal by the second, then a Map-Request.',
    expected: 'A Map-Reply with the locator of the first only.',
    run: async (stage) => {
      const { eid, second } = await merged(stage);
      await second.withdraw([{ eid, locators: [locator(ip('192.0.2.8'))] }], { flags: MERGING });
      const answer = await stage.reply(eid);
      const said = answer.records[0]?.locators.map(({ address }) => address.text).join(' ');
      demand(said === '192.0.2.7', describeAnswer(answer));
      return describeAnswer(answer);
    },
  },
];

async function merged(stage: MapServerStage) {
  const eid = ip(stage.block.v4(1));
  const second = stage.etr();
  await stage.etr().register([{ eid, locators: [locator(ip('192.0.2.7'))] }], { flags: MERGING });
  const { notify } = await second.register([{ eid, locators: [locator(ip('192.0.2.8'))] }], { flags: MERGING });
  return { eid, second, notify };
}

function nonceOf(octets: Octets): bigint {
  return new DataView(octets.buffer, octets.byteOffset).getBigUint64(4);
}
