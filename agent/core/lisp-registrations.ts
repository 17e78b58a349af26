/**
 * Registrations of own EIDs at Map-Servers of others, over UDP (RFC 9301 sections 5.6, 5.7 and 8.2).
 *
 * What is live here and inside the prefixes of a Map-Server is registered there with this host's locators: at once when
 * either changes, again every minute, and until the Map-Notify comes after 1, 2, 4 … 60 s. A detached EID is withdrawn
 * (TTL 0). One that another agent took over is left to that one: it is in the same site, and a withdrawal that comes after
 * its registration could end that. Neither does the end of this process withdraw anything, as the data plane goes on.
 *
 * Every Map-Register has a nonce of its own, larger than all before it, so a Map-Notify is the answer to any of those that
 * said what is said now. It is believed only with the key and algorithm of its Map-Server. Unsolicited ones are acknowledged.
 * Who owns an EID is for the own map server to say; here it is only noted when the others have other locators for it.
 */
import { type IpAddress, type IpPrefix, ipFamily, prefixContains } from '../../proto/address.ts';
import { type Eid, type InstanceId, prefixEid } from '../../proto/eid.ts';
import { DecodeError } from '../../proto/errors.ts';
import { ipLispAddress } from '../../proto/lisp/afi.ts';
import { type SigningOptions, signMessage, verifyAuthentication } from '../../proto/lisp/authentication.ts';
import { NO_AUTHENTICATION } from '../../proto/lisp/authentication-data.ts';
import { type EidRecord, encodedRecordSize, type RlocRecord } from '../../proto/lisp/eid-record.ts';
import { type Nonce, nonce } from '../../proto/lisp/header.ts';
import type { MapNotify } from '../../proto/lisp/map-notify.ts';
import { MAP_REGISTER } from '../../proto/lisp/map-register.ts';
import { eidToRecordKey, recordKeyToEid } from '../../proto/lisp/mapping-record.ts';
import { type Locator, NEVER_USE, type XtrId } from '../../proto/mapping.ts';
import { type Instant, type Millis, minutes, seconds } from '../../proto/time.ts';
import type { LispOutcome, LispPeer } from './lisp-responder.ts';
import type { Outbox } from './outbox.ts';
import type { EidState, Registrar } from './registrar.ts';
import { TokenBucket } from './token-bucket.ts';

export interface LispMapServer {
  readonly address: IpAddress;
  readonly port: number;
  readonly signing: SigningOptions;
  /** Own EIDs inside these are registered there. */
  readonly eids: readonly IpPrefix[];
}

export interface LispRegistrationsParts {
  readonly servers: readonly LispMapServer[];
  /** Larger than all nonces of processes before this one. */
  readonly firstNonce: Nonce;
  readonly xtrId: XtrId;
  /** Of EIDs in these messages. */
  readonly instance: InstanceId;
  readonly registrar: Pick<Registrar, 'addresses' | 'find' | 'revision'>;
  readonly locators: () => readonly Locator[];
  readonly outbox: Outbox;
}

interface Registration {
  /** As this host knows it. */
  readonly eid: Eid;
  leaving: boolean;
  /** The first nonce that carried the present content. */
  since: bigint;
  tries: number;
  answered: boolean;
  /** The present content was acknowledged once. */
  accepted: boolean;
  /** It was noted that the Map-Server has other locators. */
  taken: boolean;
  sendAt: Instant;
}

interface Server {
  readonly at: LispMapServer;
  readonly registrations: Map<IpPrefix, Registration>;
  nextAt: Instant;
  /** It was said that it does not answer. */
  silent: boolean;
}

export class LispRegistrations {
  private readonly parts: LispRegistrationsParts;
  private readonly servers: readonly Server[];
  private readonly rate: TokenBucket;
  private lastNonce: bigint;
  private seenRevision = -1;
  private seenLocators: readonly Locator[] = [];

  constructor(parts: LispRegistrationsParts, now: Instant) {
    this.parts = parts;
    this.lastNonce = parts.firstNonce;
    this.servers = parts.servers.map((at) => ({ at, registrations: new Map(), nextAt: NEVER, silent: false }));
    this.rate = new TokenBucket(2 * NOTIFIES_PER_SECOND, NOTIFIES_PER_SECOND, now);
  }

  /** Whether a Map-Notify can be expected from there. */
  isServer(address: IpAddress): boolean {
    return this.servers.some(({ at }) => at.address === address);
  }

  /** `bytes` are the whole of `message`. */
  handleNotify(from: LispPeer, message: MapNotify, bytes: Uint8Array, now: Instant): LispOutcome {
    if (!this.rate.take(now)) return 'limited';
    const server = this.servers.find(({ at }) => at.address === from.address && isAuthentic(at, message, bytes));
    if (server === undefined) return 'unauthentic';
    const { nonce: answered } = message;
    if (answered > this.parts.firstNonce && answered <= this.lastNonce) {
      return this.acknowledged(server, message, now) ? 'acknowledged' : 'ignored';
    }
    const ack = signMessage({ ...message, type: 'map-notify-ack' }, server.at.signing);
    this.parts.outbox.sendPlainly(from, ack);
    this.noteTaken(server, message);
    return 'notified';
  }

  handleTimeout(now: Instant): void {
    if (this.isBehind()) this.follow(now);
    for (const server of this.servers) if (now >= server.nextAt) this.sendDue(server, now);
  }

  pollTimeout(): Instant {
    return this.isBehind() ? Number.NEGATIVE_INFINITY : Math.min(...this.servers.map(({ nextAt }) => nextAt));
  }

  private isBehind(): boolean {
    const { registrar, locators } = this.parts;
    return this.seenRevision !== registrar.revision || this.seenLocators !== locators();
  }

  /** What is to be registered now, and what no more. */
  private follow(now: Instant): void {
    const { registrar, locators } = this.parts;
    const moved = this.seenLocators !== locators();
    this.seenRevision = registrar.revision;
    this.seenLocators = locators();
    const live = registrar.addresses().filter(({ state }) => state === 'live');
    for (const server of this.servers) {
      const wanted = new Set<IpPrefix>();
      for (const { eid } of live) {
        if (eid.kind !== 'prefix' || !server.at.eids.some((prefix) => prefixContains(prefix, eid.prefix))) continue;
        wanted.add(eid.prefix);
        const known = server.registrations.get(eid.prefix);
        if (known !== undefined && !known.leaving && !moved) continue;
        if (known === undefined && server.registrations.size >= MAX_EIDS) {
          this.parts.outbox.note({ type: 'limit', what: 'registrations' });
          continue;
        }
        server.registrations.set(eid.prefix, this.registration(eid, false, now));
      }
      for (const [prefix, { eid, leaving }] of server.registrations) {
        if (wanted.has(prefix) || leaving) continue;
        if (ELSEWHERE.has(registrar.find(eid)?.state)) server.registrations.delete(prefix);
        else server.registrations.set(prefix, this.registration(eid, true, now));
      }
      server.nextAt = now;
    }
  }

  private registration(eid: Eid, leaving: boolean, now: Instant): Registration {
    const fresh = { tries: 0, answered: false, accepted: false, taken: false };
    return { eid, leaving, since: this.lastNonce + 1n, ...fresh, sendAt: now };
  }

  private sendDue(server: Server, now: Instant): void {
    server.nextAt = NEVER;
    // Without locators it would cut off everybody who talks to it.
    const rlocs = this.rlocs();
    if (rlocs.length === 0) return;
    const { registrations } = server;
    const due = [...registrations].filter(([, { sendAt }]) => sendAt <= now);
    let group: EidRecord[] = [];
    let room = MESSAGE_SIZE;
    for (const [prefix, registration] of due.slice(0, EIDS_AT_ONCE)) {
      if (registration.leaving && registration.tries >= TRIES) {
        registrations.delete(prefix);
        continue;
      }
      const record = this.record(prefix, registration.leaving, rlocs);
      const size = encodedRecordSize(record);
      if (size > room) {
        this.send(server.at, group);
        group = [];
        room = MESSAGE_SIZE;
      }
      group.push(record);
      room -= size;
      this.tried(registration, now);
    }
    if (group.length > 0) this.send(server.at, group);
    this.noteSilence(server);
    this.schedule(server, due.length > EIDS_AT_ONCE ? now + PAUSE : now);
  }

  /** It goes out with the next nonce. */
  private tried(registration: Registration, now: Instant): void {
    if (registration.answered) {
      registration.answered = false;
      registration.tries = 0;
      registration.since = this.lastNonce + 1n;
    }
    registration.sendAt = now + Math.min(FIRST_RETRY * 2 ** registration.tries, REFRESH);
    registration.tries += 1;
  }

  private schedule(server: Server, earliest: Instant): void {
    let next = NEVER;
    for (const { sendAt } of server.registrations.values()) next = Math.min(next, sendAt);
    server.nextAt = Math.max(next, earliest);
  }

  private send({ address, port, signing }: LispMapServer, records: readonly EidRecord[]): void {
    const { xtrId, outbox } = this.parts;
    this.lastNonce += 1n;
    const register = { ...REGISTER, nonce: nonce(this.lastNonce), records, xtrId, siteId: 0n };
    outbox.sendPlainly({ address, port }, signMessage(register, signing));
  }

  /** False if it says nothing about what is registered now. */
  private acknowledged(server: Server, message: MapNotify, now: Instant): boolean {
    let accepted = 0;
    let any = false;
    for (const { prefix, registration } of this.registrationsIn(server, message)) {
      if (message.nonce < registration.since || registration.answered) continue;
      any = true;
      if (registration.leaving) {
        server.registrations.delete(prefix);
        continue;
      }
      if (!registration.accepted || registration.tries >= TRIES) accepted += 1;
      registration.answered = true;
      registration.accepted = true;
      registration.sendAt = now + REFRESH;
    }
    if (accepted > 0) this.note(server, 'accepted', accepted);
    if (any) this.noteSilence(server);
    this.schedule(server, now);
    return any;
  }

  private noteTaken(server: Server, message: MapNotify): void {
    let taken = 0;
    for (const { registration, record } of this.registrationsIn(server, message)) {
      if (registration.leaving || registration.taken || this.isOurs(record)) continue;
      registration.taken = true;
      taken += 1;
    }
    if (taken > 0) this.note(server, 'taken', taken);
  }

  private isOurs({ locators }: EidRecord): boolean {
    const own = new Set(this.parts.locators().map(({ address }) => address));
    return locators.some(({ locator }) => locator.kind === 'ip' && own.has(locator.address));
  }

  /** Said when the first EID stays without an answer; again after all have had one. */
  private noteSilence(server: Server): void {
    let unanswered = 0;
    for (const { answered, tries } of server.registrations.values()) if (!answered && tries >= TRIES) unanswered += 1;
    if (unanswered > 0 && !server.silent) this.note(server, 'unanswered', unanswered);
    server.silent = unanswered > 0;
  }

  private note({ at }: Server, result: 'accepted' | 'unanswered' | 'taken', eids: number): void {
    const where = ipFamily(at.address) === 4 ? at.address : `[${at.address}]`;
    this.parts.outbox.note({ type: 'lisp-registration', result, server: `${where}:${at.port}`, eids });
  }

  private *registrationsIn(server: Server, { records }: MapNotify) {
    for (const record of records) {
      const prefix = this.prefixOf(record);
      const registration = prefix === undefined ? undefined : server.registrations.get(prefix);
      if (prefix !== undefined && registration !== undefined) yield { prefix, registration, record };
    }
  }

  private prefixOf(record: EidRecord): IpPrefix | undefined {
    try {
      const eid = recordKeyToEid(record.eid, record.maskLength);
      return eid.kind === 'prefix' && eid.iid === this.parts.instance ? eid.prefix : undefined;
    } catch (error) {
      if (error instanceof DecodeError) return undefined;
      throw error;
    }
  }

  private record(prefix: IpPrefix, leaving: boolean, locators: readonly RlocRecord[]): EidRecord {
    const key = eidToRecordKey(prefixEid(this.parts.instance, prefix));
    return { ...key, ttl: leaving ? 0 : TTL_MINUTES, action: 0, authoritative: true, mapVersion: 0, locators };
  }

  private rlocs(): RlocRecord[] {
    const usable = this.parts.locators().filter(({ priority }) => priority < NEVER_USE);
    return usable.map(({ address, priority, weight }) => ({
      priority,
      weight,
      multicastPriority: NEVER_USE,
      multicastWeight: 0,
      local: true,
      probed: false,
      reachable: true,
      locator: ipLispAddress(address),
    }));
  }
}

function isAuthentic({ signing }: LispMapServer, { authentication }: MapNotify, bytes: Uint8Array): boolean {
  const { keyId, algorithm } = authentication;
  return keyId === signing.keyId && algorithm === signing.algorithm && verifyAuthentication(bytes, signing.psk).ok;
}

const REGISTER = {
  ...MAP_REGISTER,
  authentication: NO_AUTHENTICATION,
} as const;
const ELSEWHERE: ReadonlySet<EidState | undefined> = new Set(['drain', 'lost']);
const NEVER = Number.POSITIVE_INFINITY;
const REFRESH: Millis = minutes(1);
const FIRST_RETRY: Millis = seconds(1);
/** Then it is said that they stay unanswered, and a withdrawal is given up: the registration ends by itself. */
const TRIES = 6;
/** Short, as a roam is told to nobody who asked there. */
const TTL_MINUTES = 1;
/** Of records in a message, so that it is not fragmented. */
const MESSAGE_SIZE = 1200;
const MAX_EIDS = 4096;
const EIDS_AT_ONCE = 512;
const PAUSE: Millis = 50;
const NOTIFIES_PER_SECOND = 500;
