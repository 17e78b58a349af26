/** One ETR of the kit's site, and what it registered, which it withdraws at the end. */
import { demand } from '../check.ts';
import type { Answer } from '../lisp/answers.ts';
import { codeLengths, type SiteKey, seal } from '../lisp/message-code.ts';
import {
  authenticatedMessage,
  hostMask,
  ip,
  join,
  locator,
  type Octets,
  REGISTER,
  type RecordOptions,
  record,
  TYPE,
  u8,
  xtrTrailer,
} from '../lisp/octets.ts';
import type { UdpPort } from '../lisp/udp-port.ts';
import type { MapServerStage } from './stage.ts';
import type { Xtr } from './xtrs.ts';

export interface EidRecord extends RecordOptions {
  /** With its AFI. */
  readonly eid: Octets;
}

export interface RegisterChange {
  /** Besides I, which follows from the trailer. P, M and T without it. */
  readonly flags?: number;
  readonly nonce?: bigint;
  /** Empty: none. */
  readonly trailer?: Octets;
  readonly key?: SiteKey;
  readonly codeLength?: number;
  /** RFC 9301 covers the records only; deployed implementations cover the trailer as well. */
  readonly covers?: 'records' | 'payload';
  readonly on?: UdpPort;
}

export interface Registration {
  readonly nonce: bigint;
  readonly octets: Octets;
  readonly notify: Answer;
}

export class Etr {
  readonly xtr: Xtr;
  private readonly stage: MapServerStage;
  private readonly key: SiteKey;
  /** With the trailer that they were registered with, since an ETR without an xTR-ID is another one. */
  private readonly registered = new Map<string, EidRecord & { readonly trailer: Octets }>();

  constructor(stage: MapServerStage, key: SiteKey, xtr: Xtr) {
    this.stage = stage;
    this.key = key;
    this.xtr = xtr;
  }

  /** A Map-Register; its EIDs are withdrawn at the end, whatever becomes of it. */
  message(records: readonly EidRecord[], change: RegisterChange = {}): { nonce: bigint; octets: Octets } {
    const { flags = PROXY_NOTIFY, nonce = this.xtr.nextNonce(), key = this.key, covers = 'records' } = change;
    const { trailer = xtrTrailer(this.xtr.id), codeLength = codeLengths(key.algorithm).rfc } = change;
    this.xtr.continueFrom(nonce);
    for (const each of records) {
      const { eid, maskLength = hostMask(eid) } = each;
      this.registered.set(`${maskLength} ${Buffer.from(eid).toString('hex')}`, { eid, maskLength, trailer });
    }
    const plain = authenticatedMessage({
      type: TYPE.mapRegister,
      flags: trailer.length > 0 ? flags | REGISTER.I : flags,
      nonce,
      keyId: key.keyId,
      algorithm: key.algorithm,
      authentication: new Uint8Array(codeLength),
      records: records.map((each) => this.recordOf(each)),
      trailer,
    });
    const end = covers === 'records' ? plain.length - trailer.length : plain.length;
    return { nonce, octets: seal(plain, key, end) };
  }

  /** Registers and waits for the Map-Notify; a lost one is asked for again, with a new nonce. @throws Deviation */
  async register(records: readonly EidRecord[], change: RegisterChange = {}): Promise<Registration> {
    const on = change.on ?? this.stage.port;
    const { answerMs } = this.stage.subject;
    for (let turn = 0; turn < TURNS; turn++) {
      const { nonce, octets } = this.message(records, change);
      await on.send(octets);
      const notify = await this.stage.answer(nonce, Math.max(answerMs, turn * 1000), on);
      if (notify === undefined) {
        if (change.nonce !== undefined) break;
        continue;
      }
      demand(notify.type === TYPE.mapNotify, `A message of type ${notify.type} and no Map-Notify.`);
      return { nonce, octets, notify };
    }
    demand(false, 'No Map-Notify for a right Map-Register.');
  }

  /** Withdraws by TTL 0. @throws Deviation without a Map-Notify */
  async withdraw(records: readonly EidRecord[], change: RegisterChange = {}): Promise<Registration> {
    const registration = await this.register(
      records.map((each) => ({ ...each, ttl: 0 })),
      change,
    );
    for (const { eid, maskLength = hostMask(eid) } of records) this.forget(eid, maskLength);
    return registration;
  }

  async withdrawAll(): Promise<void> {
    const left = [...this.registered.values()];
    for (const named of [true, false]) {
      const records = left.filter(({ trailer }) => trailer.length > 0 === named).map((each) => ({ ...each, ttl: 0 }));
      for (let at = 0; at < records.length; at += RECORDS) {
        const { nonce, octets } = this.message(records.slice(at, at + RECORDS), named ? {} : { trailer: u8() });
        await this.stage.port.send(octets);
        await this.stage.answer(nonce);
      }
    }
    this.registered.clear();
  }

  private forget(eid: Octets, maskLength: number): void {
    this.registered.delete(`${maskLength} ${Buffer.from(eid).toString('hex')}`);
  }

  private recordOf({ eid, ...options }: EidRecord): Octets {
    return record(eid, { locators: [locator(ip(this.stage.subject.local))], ...options });
  }
}

/** An acknowledgement of a Map-Notify, with the code made for it. */
export function acknowledgement(notify: Answer, key: SiteKey): Octets {
  const flags = notify.word & 0xff;
  const records = notify.octets.subarray(AUTHENTICATION_END(notify), notify.recordsEnd);
  const plain = join(
    authenticatedMessage({
      type: TYPE.mapNotifyAck,
      flags: 0,
      nonce: notify.nonce,
      keyId: key.keyId,
      algorithm: key.algorithm,
      authentication: new Uint8Array(notify.authentication.length),
      records: [],
      recordCount: flags,
    }),
    records,
    u8(),
  );
  return seal(plain, key);
}

/** P, M and no T: the target's own time-out, of three minutes, ends what could not be withdrawn. */
export const PROXY_NOTIFY: number = REGISTER.P | REGISTER.M;

const AUTHENTICATION_END = (notify: Answer): number => 16 + notify.authentication.length;
const TURNS = 3;
const RECORDS = 12;
