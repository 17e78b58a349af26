/**
 * The xTRs that the kit plays: an xTR-ID each, and nonces that grow.
 *
 * A Map-Server has to keep the last nonce of each xTR-ID for good. So there are few of them, they are the same in each
 * run from this address, and a check takes those that are free. Nonces follow the clock, so those of the next run are
 * larger, and none is far ahead of it, so that the key is of use to its owner afterwards, at servers too that keep one
 * nonce for a whole site.
 */
import { createHash } from 'node:crypto';
import type { Octets } from '../lisp/octets.ts';

export class Xtr {
  readonly id: Octets;
  /** Apart from those of other xTRs that begin in the same millisecond. */
  private readonly offset: bigint;
  private readonly lagMs: number;
  private lastNonce = 0n;

  constructor(id: Octets, serial: number, lagMs = 0) {
    this.id = id;
    this.offset = BigInt(serial % 128) * 256n;
    this.lagMs = lagMs;
  }

  /** Even, so that one whose last bit is changed was not used either. */
  nextNonce(): bigint {
    const clock = (BigInt(Date.now() - this.lagMs) << 16n) + this.offset;
    this.lastNonce = clock > this.lastNonce ? clock : this.lastNonce + 2n;
    return this.lastNonce;
  }

  /** Nonces go on from here. */
  continueFrom(nonce: bigint): void {
    if (nonce > this.lastNonce) this.lastNonce = nonce + (nonce & 1n);
  }
}

export class XtrPool {
  private readonly address: string;
  /** The one that was used last at the end. */
  private readonly free: Xtr[] = [];
  private readonly apart = new Map<string, Xtr>();
  private made = 0;

  /** `address`: the own one; kits at other addresses have other xTR-IDs. */
  constructor(address: string) {
    this.address = address;
  }

  take(): Xtr {
    return this.free.shift() ?? this.make(`${this.made}`);
  }

  giveBack(xtr: Xtr): void {
    this.free.push(xtr);
  }

  /** One that only one check uses, because it may leave it with a nonce that others could not go on from. */
  named(name: string, lagMs = 0): Xtr {
    const xtr = this.apart.get(name) ?? this.make(name, lagMs);
    this.apart.set(name, xtr);
    return xtr;
  }

  /** One whose nonces are 70 s behind the clock, for one check to go ahead from there: each of 80 in its second. */
  behind(): Xtr {
    return this.named(`behind ${Math.floor(Date.now() / 1_000) % 80}`, 70_000);
  }

  private make(name: string, lagMs = 0): Xtr {
    const digest = createHash('sha256').update(`${this.address} ${name}`).digest();
    return new Xtr(new Uint8Array(Buffer.concat([XTR_ID_START, digest.subarray(0, 12)])), this.made++, lagMs);
  }
}

/** "conf" in ASCII: whoever finds one of these in a log knows where it is from. */
const XTR_ID_START = Buffer.from('conf', 'latin1');
