/** Renews the agent's certificate at the map server, for the same keys, over TLS with the certificate that it has. */
import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import { z } from 'zod';
import { callApi } from '../../runtime/http-api.ts';
import type { Log } from '../../runtime/log.ts';
import { Renewal, type Validity } from '../core/renewal.ts';
import type { Identity } from './identity.ts';
import { fingerprintOf, issuerOf, readAnchors } from './trust-anchors.ts';

/** PEM: the certificate, and whom to trust from now on. */
export type Renewed = Pick<Identity, 'certificate' | 'ca'>;

type Credentials = Pick<Identity, 'mapServer' | 'ca' | 'certificate' | 'tlsPrivateKey'>;

export class CertificateRenewal {
  private readonly identity: () => Credentials;
  private readonly onRenewed: (renewed: Renewed) => void;
  private readonly wall: () => number;
  private readonly log: Log;
  private readonly renewal: Renewal;
  private timer: NodeJS.Timeout | null = null;
  private problem: string | null = null;
  private stopped = false;
  private busy = false;
  /** Judges what the map server said last while a renewal was under way, by what that has brought. */
  private judgeLater: (() => void) | null = null;

  constructor(
    identity: () => Credentials,
    onRenewed: (renewed: Renewed) => void,
    log: Log,
    wall: () => number = Date.now,
  ) {
    this.identity = identity;
    this.onRenewed = onRenewed;
    this.wall = wall;
    this.log = log;
    this.renewal = new Renewal(presentValidity(identity().certificate));
  }

  /** Milliseconds since 1970. */
  get notAfter(): number {
    return this.renewal.notAfter;
  }

  /** That it ends soon, or has ended, in a line; null when all is well. */
  get warning(): string | null {
    if (!this.renewal.isLate(this.wall())) return null;
    const ends = new Date(this.renewal.notAfter).toISOString();
    const why = this.problem === null ? '' : ` (${this.problem})`;
    return `the certificate ends at ${ends} and was not renewed${why}: bring the map server within reach, or join again with a new token and --force`;
  }

  start(): void {
    if (!this.stopped) void this.check();
  }

  stop(): void {
    this.stopped = true;
    if (this.timer !== null) clearTimeout(this.timer);
  }

  /**
   * The authorities that the map server trusts now (SHA-256 in hex, the one that issues first). If this agent does not
   * have just these, or a certificate of another than the first, it renews at some moment within `withinMs`.
   */
  handleAuthorities(authorities: readonly string[], withinMs: number, random = Math.random): void {
    if (this.busy) {
      this.judgeLater = () => this.handleAuthorities(authorities, withinMs, random);
      return;
    }
    const { ca, certificate } = this.identity();
    const known = readAnchors(ca);
    const issuer = issuerOf(new X509Certificate(certificate), known);
    const same =
      authorities.length === known.length && known.every((each) => authorities.includes(fingerprintOf(each)));
    if (same && issuer !== undefined && fingerprintOf(issuer) === authorities[0]) return;
    this.renewal.hasten(this.wall() + random() * withinMs);
    this.schedule();
  }

  /** Renews if it is time. */
  async check(): Promise<void> {
    if (this.busy) return;
    if (this.renewal.isDue(this.wall())) {
      this.busy = true;
      await this.renew();
      this.busy = false;
      const { judgeLater } = this;
      this.judgeLater = null;
      judgeLater?.();
    }
    this.schedule();
  }

  private schedule(): void {
    // While one is under way it is due all the time; the next is thought of at its end.
    if (this.stopped || this.busy) return;
    if (this.timer !== null) clearTimeout(this.timer);
    const delay = Math.min(Math.max(this.renewal.dueAt() - this.wall(), 0), LONGEST_PAUSE);
    this.timer = setTimeout(() => void this.check(), delay).unref();
  }

  private async renew(): Promise<void> {
    const { mapServer, ca, certificate, tlsPrivateKey } = this.identity();
    try {
      const target = { ...mapServer, ca, certificate, privateKey: tlsPrivateKey };
      const answer = ANSWER.parse(await callApi(target, 'POST', '/v1/renew', { body: {} }));
      const renewed = { certificate: answer.certificate, ca: answer.ca ?? ca };
      const validity = validated(renewed, tlsPrivateKey);
      this.renewal.renewed(validity, this.wall());
      this.problem = null;
      if (!this.stopped) this.onRenewed(renewed);
    } catch (err) {
      this.renewal.failed(this.wall());
      if (this.problem === null) this.log.warn({ err }, 'the certificate cannot be renewed, trying on');
      this.problem = (err as Error).message;
    }
  }
}

/** @throws Error when it is not a certificate of these authorities for this key */
function validated({ certificate: pem, ca }: Renewed, privateKey: string): Validity {
  const certificate = new X509Certificate(pem);
  if (issuerOf(certificate, readAnchors(ca)) === undefined) throw new Error('it is not of this overlay’s CA');
  const own = createPublicKey(createPrivateKey(privateKey));
  if (!certificate.publicKey.equals(own)) throw new Error('it is for another key');
  return validityOf(pem);
}

/** One that cannot be read is as good as ended. */
function presentValidity(pem: string): Validity {
  try {
    return validityOf(pem);
  } catch {
    return { notBefore: 0, notAfter: 0 };
  }
}

function validityOf(pem: string): Validity {
  const { validFrom, validTo } = new X509Certificate(pem);
  return { notBefore: Date.parse(validFrom), notAfter: Date.parse(validTo) };
}

const PEM = z.string().includes('-----BEGIN CERTIFICATE-----').max(65_536);
/** Older map servers do not send their authorities along. */
const ANSWER = z.object({ certificate: PEM, ca: PEM.optional() });
/** A step of the wall clock is noticed after it at the latest. */
const LONGEST_PAUSE = 3_600_000;
