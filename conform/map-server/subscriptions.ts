/** Publish/subscribe (RFC 9437) and acknowledgements of Map-Notify messages (RFC 9301 5.7). */
import { type Check, demand, group } from '../check.ts';
import { type Answer, describeAnswer } from '../lisp/answers.ts';
import { codeCovers } from '../lisp/message-code.ts';
import { nonceIn } from '../lisp/nonces.ts';
import { ip, locator, NO_ADDRESS, type Octets, REQUEST, TYPE, xtrTrailer } from '../lisp/octets.ts';
import type { Datagram, UdpPort } from '../lisp/udp-port.ts';
import { acknowledgement, type Etr } from './etr.ts';
import type { MapServerStage } from './stage.ts';
import type { Xtr } from './xtrs.ts';

type Draft = Omit<Check<MapServerStage>, 'id'>;

export function subscriptionChecks(): readonly Check<MapServerStage>[] {
  return group('MS-SUB', SUBSCRIPTIONS);
}

interface Subscription {
  /** Of the subscriber: UDP port 4342, where publications come to. */
  readonly port: UdpPort;
  readonly eid: Octets;
  readonly etr: Etr;
  readonly xtr: Xtr;
  readonly nonce: bigint;
  readonly octets: Octets;
  readonly notify: Answer;
}

const SUBSCRIPTIONS: readonly Draft[] = [
  {
    level: 'MUST',
    source: 'RFC 9437 5',
    title: 'A subscription is confirmed by a Map-Notify with its nonce',
    sent: 'A Map-Request with I=1, N=1 and an xTR-ID, for a registered EID.',
    expected: 'A Map-Notify with the same nonce and the mapping, and no Map-Reply.',
    run: async (stage) => describe((await subscribed(stage)).notify),
  },
  {
    level: 'MUST',
    source: 'RFC 9437 5',
    title: 'The confirmation of a subscription is authenticated',
    sent: 'A subscription to a registered EID.',
    expected: 'A Map-Notify with a right code of the site’s key.',
    run: async (stage) => {
      const { notify } = await subscribed(stage);
      const covered = codeCovers(notify, stage.key);
      demand(covered !== 'nothing', `A code of ${notify.authentication.length} octets that is not the key’s.`);
      return `A right code over the ${covered}.`;
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9437 6',
    title: 'A change is published to the subscriber',
    sent: 'A subscription, then a Map-Register with another locator.',
    expected: 'A Map-Notify with the new locator.',
    run: async (stage) => {
      const { eid, etr, notify } = await subscribed(stage);
      const publication = await published(stage, notify, () =>
        etr.register([{ eid, locators: [locator(ip('192.0.2.88'))] }]),
      );
      demand(publication.records[0]?.locators[0]?.address.text === '192.0.2.88', describe(publication));
      return describe(publication);
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9437 6',
    title: 'The nonce of a publication follows that of the subscription',
    sent: 'A subscription, then a Map-Register with another locator.',
    expected: 'A Map-Notify with the nonce of the subscription plus one.',
    run: async (stage) => {
      const { eid, etr, nonce, notify } = await subscribed(stage);
      const publication = await published(stage, notify, () =>
        etr.register([{ eid, locators: [locator(ip('192.0.2.88'))] }]),
      );
      demand(publication.nonce === nonce + 1n, `It is larger by ${publication.nonce - nonce}.`);
      return 'It is larger by one.';
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9437 6',
    title: 'A withdrawal is published',
    sent: 'A subscription, then the withdrawal of the EID.',
    expected: 'A Map-Notify with TTL 0 or without locators.',
    run: async (stage) => {
      const { eid, etr, notify } = await subscribed(stage);
      const publication = await published(stage, notify, () => etr.withdraw([{ eid }]));
      const [first] = publication.records;
      demand(first !== undefined && (first.ttl === 0 || first.locators.length === 0), describe(publication));
      return describe(publication);
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.7',
    title: 'A publication that is not acknowledged is sent again',
    sent: 'A subscription, then a Map-Register with another locator, and no Map-Notify-Ack.',
    expected: 'The same Map-Notify a second time, within four seconds.',
    run: async (stage) => {
      const { eid, etr, notify } = await subscribed(stage);
      const publication = await unacknowledged(stage, notify, () =>
        etr.register([{ eid, locators: [locator(ip('192.0.2.88'))] }]),
      );
      const again = await repetition(stage, publication, 4_500);
      demand(again, 'It did not come again within 4.5 s.');
      await acknowledge(stage, publication);
      return 'It came again.';
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.7',
    title: 'A publication that was acknowledged is not sent again',
    sent: 'A subscription, then a Map-Register with another locator, and the Map-Notify-Ack.',
    expected: 'No second Map-Notify within four seconds.',
    run: async (stage) => {
      const { eid, etr, notify } = await subscribed(stage);
      const publication = await published(stage, notify, () =>
        etr.register([{ eid, locators: [locator(ip('192.0.2.88'))] }]),
      );
      demand(!(await repetition(stage, publication, 4_500)), 'It came again.');
      return 'It did not come again.';
    },
  },
  {
    level: 'interop',
    source: 'RFC 9437 4',
    title: 'A trailer of an xTR-ID without a Site-ID, as lispers.net sends it, subscribes as well',
    sent: 'A Map-Request with I=1, N=1 and a trailer of 16 octets.',
    expected: 'A Map-Notify with the same nonce.',
    run: async (stage) => describe((await subscribed(stage, (xtrId) => xtrId)).notify),
  },
  {
    level: 'MUST',
    source: 'RFC 9437 4',
    title: 'A subscription without an xTR-ID is dropped',
    sent: 'A Map-Request with I=1 and N=1, and no trailer.',
    expected: 'No answer.',
    run: async (stage) => {
      const eid = ip(stage.block.v4(1));
      await stage.etr().register([{ eid }]);
      const { octets } = stage.request(eid, { flags: REQUEST.I, recordFlags: 0x80 });
      return stage.unanswered(octets, 'a subscription without a trailer');
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9437 5',
    title: 'A recorded subscription is dropped',
    sent: 'A subscription, confirmed, and the same octets again.',
    expected: 'No second answer.',
    run: async (stage) => {
      const { octets } = await subscribed(stage);
      return stage.unanswered(octets, 'the repetition', await stage.lispPort());
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9437 5',
    title: 'A subscription with an older nonce is dropped',
    sent: 'A subscription, confirmed, and another of the same xTR-ID with a smaller nonce.',
    expected: 'No answer to the second.',
    run: async (stage) => {
      const { eid, xtr, nonce } = await subscribed(stage);
      const older = subscription(stage, eid, xtrTrailer(xtr.id), nonce - 5n);
      return stage.unanswered(older, 'the older nonce', await stage.lispPort());
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9437 5',
    title: 'After unsubscribing nothing is published',
    sent: 'A subscription, a Map-Request with N=1 whose only ITR-RLOC has AFI 0, then a Map-Register with another locator.',
    expected: 'No further Map-Notify to the subscriber.',
    run: async (stage) => {
      const { port, eid, etr, xtr } = await subscribed(stage);
      await port.send(subscription(stage, eid, xtrTrailer(xtr.id), xtr.nextNonce(), [NO_ADDRESS]));
      await stage.fence();
      const before = port.inbox.length;
      await etr.register([{ eid, locators: [locator(ip('192.0.2.88'))] }]);
      await stage.fence();
      const told = port.inbox.slice(before).some((datagram) => tells(stage, datagram, '192.0.2.88'));
      demand(!told, 'The change was published to it.');
      return 'The change was not published to it.';
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9437 5',
    title: 'A subscription to an EID that is not registered is answered negatively',
    sent: 'A subscription to an EID of the site that nobody has registered.',
    expected: 'A Map-Reply or a Map-Notify without locators, with the same nonce.',
    run: async (stage) => {
      const answer = await subscribeToNothing(stage);
      demand(answer.records[0]?.locators.length === 0, describe(answer));
      return describe(answer);
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9437 5',
    title: 'Who subscribed to an EID that was not registered hears of its registration',
    sent: 'A subscription to an EID that nobody has registered, then its Map-Register.',
    expected: 'A Map-Notify with the locator.',
    run: async (stage) => {
      const answer = await subscribeToNothing(stage);
      const publication = await published(stage, answer, () =>
        stage.etr().register([{ eid: ip(stage.block.v4(1)), locators: [locator(ip('192.0.2.88'))] }]),
      );
      return describe(publication);
    },
  },
  {
    level: 'MUST',
    source: 'RFC 9301 5.7',
    title: 'A Map-Notify-Ack with a nonce that nobody sent is harmless',
    sent: 'A Map-Notify-Ack with a right code and a nonce of no Map-Notify.',
    expected: 'No answer.',
    run: async (stage) => {
      const { notify } = await stage.etr().register([{ eid: ip(stage.block.v4(1)) }]);
      const octets = acknowledgement({ ...notify, nonce: notify.nonce + 77n }, stage.key);
      return stage.unanswered(octets, 'the Map-Notify-Ack');
    },
  },
];

/** Confirmed, and the confirmation acknowledged. */
async function subscribed(
  stage: MapServerStage,
  trailer: (xtrId: Octets) => Octets = (xtrId) => xtrTrailer(xtrId),
): Promise<Subscription> {
  const eid = ip(stage.block.v4(1));
  const etr = stage.etr();
  const port = await stage.lispPort();
  await etr.register([{ eid, locators: [locator(ip('192.0.2.7'))] }]);
  const xtr = stage.xtr();
  const nonce = xtr.nextNonce();
  const octets = subscription(stage, eid, trailer(xtr.id), nonce);
  endLater(stage, eid, trailer(xtr.id), xtr);
  await port.send(octets);
  const notify = await stage.answer(nonce, stage.subject.answerMs, port);
  demand(notify !== undefined, 'No answer to the subscription.');
  demand(notify.type === TYPE.mapNotify, `It was answered with ${describeAnswer(notify)}.`);
  await acknowledge(stage, notify);
  return { port, eid, etr, xtr, nonce, octets, notify };
}

async function subscribeToNothing(stage: MapServerStage): Promise<Answer> {
  const eid = ip(stage.block.v4(1));
  const xtr = stage.xtr();
  const nonce = xtr.nextNonce();
  const port = await stage.lispPort();
  endLater(stage, eid, xtrTrailer(xtr.id), xtr);
  await port.send(subscription(stage, eid, xtrTrailer(xtr.id), nonce));
  const answer = await stage.answer(nonce, stage.subject.answerMs, port);
  demand(answer !== undefined, 'No answer to the subscription.');
  if (answer.type === TYPE.mapNotify) await acknowledge(stage, answer);
  return answer;
}

/** A target that went on to publish would disturb later checks. */
function endLater(stage: MapServerStage, eid: Octets, trailer: Octets, xtr: Xtr): void {
  stage.atEnd(async () => {
    const port = await stage.lispPort();
    for (const last of Array.from({ length: ENDINGS }, () => xtr.nextNonce())) {
      await port.send(subscription(stage, eid, trailer, last, [NO_ADDRESS]));
      const confirmed = await stage.answer(last, stage.subject.answerMs, port);
      if (confirmed === undefined) continue;
      if (confirmed.type === TYPE.mapNotify) await acknowledge(stage, confirmed);
      return;
    }
  });
}

function subscription(
  stage: MapServerStage,
  eid: Octets,
  trailer: Octets,
  nonce: bigint,
  itrRlocs = [ip(stage.subject.local)],
): Octets {
  const { octets } = stage.request(eid, { flags: REQUEST.I, recordFlags: 0x80, trailer, itrRlocs });
  new DataView(octets.buffer).setBigUint64(4, nonce);
  return octets;
}

/** The Map-Notify for what `change` does, unlike `confirmation` and unlike answers to the change itself; acknowledged. */
async function published(stage: MapServerStage, confirmation: Answer, change: () => Promise<unknown>): Promise<Answer> {
  const publication = await unacknowledged(stage, confirmation, change);
  await acknowledge(stage, publication);
  return publication;
}

/** The same without an acknowledgement, after which it comes again. */
async function unacknowledged(
  stage: MapServerStage,
  confirmation: Answer,
  change: () => Promise<unknown>,
): Promise<Answer> {
  const port = await stage.lispPort();
  const before = port.inbox.length;
  const elsewhere = change();
  const publication = await port.wait(
    (datagram) => {
      const answer = stage.notification(datagram);
      if (answer === undefined || answer.nonce <= confirmation.nonce) return undefined;
      return answer.nonce < confirmation.nonce + 16n ? answer : undefined;
    },
    stage.subject.answerMs * 2,
    before,
  );
  await elsewhere;
  demand(publication !== undefined, 'No Map-Notify came for the change.');
  return publication;
}

async function acknowledge(stage: MapServerStage, notify: Answer): Promise<void> {
  await (await stage.lispPort()).send(acknowledgement(notify, stage.key));
}

async function repetition(stage: MapServerStage, notify: Answer, ms: number): Promise<boolean> {
  const port = await stage.lispPort();
  const same = (): number => port.inbox.filter(({ octets }) => nonceIn(octets) === notify.nonce).length;
  const seen = same();
  return (await port.wait(() => (same() > seen ? true : undefined), ms)) === true;
}

function tells(stage: MapServerStage, datagram: Datagram, address: string): boolean {
  const octets = stage.notification(datagram)?.octets ?? new Uint8Array();
  return Buffer.from(octets).includes(Buffer.from(ip(address)));
}

function describe(answer: Answer): string {
  return `${describeAnswer(answer)}.`;
}

/** Attempts to unsubscribe. */
const ENDINGS = 2;
