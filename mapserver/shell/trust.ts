/**
 * Which certificate authorities this map server and its agents trust at the moment, and the certificates in use.
 *
 * There is one authority, and during a roll-over the one before as well. The new one issues everything from the start.
 * Agents that do not know it yet accept the server's certificate all the same, since the one before vouches for the new
 * one (a cross-certificate goes along); they learn of it in their session, and renew their own certificates. The one
 * before is retired when no valid certificate of it can be left, or by order. So at no time is there an agent that can be
 * reached but not verified.
 */
import { X509Certificate } from 'node:crypto';
import type { Millis, WallClock } from '../../proto/time.ts';
import { ApiError } from '../../runtime/http-api.ts';
import type { AgentRecord } from '../core/records.ts';
import {
  CLOCK_SKEW,
  createAuthority,
  crossCertify,
  endOf,
  fingerprint,
  type KeyAndCertificate,
  nameOf,
  startOf,
} from './certificate-authority.ts';
import { type OverlayFiles, presentServer, writeOverlay } from './overlay-files.ts';

export interface AuthorityView {
  readonly fingerprint: string;
  readonly subject: string;
  readonly issuer: string;
  readonly notBefore: WallClock;
  readonly notAfter: WallClock;
}

export class Trust {
  private readonly dataDir: string;
  private readonly agentLife: Millis;
  private files: OverlayFiles;
  /** The present one first. */
  certificates: readonly X509Certificate[];
  private readonly listeners: (() => void)[] = [];

  /** `agentLife`: of the certificates that agents get. */
  constructor(dataDir: string, files: OverlayFiles, agentLife: Millis) {
    this.dataDir = dataDir;
    this.files = files;
    this.agentLife = agentLife;
    this.certificates = this.parsed();
  }

  /** Issues everything. */
  get authority(): KeyAndCertificate {
    return this.files.authority;
  }

  /** PEM, the present one first. */
  get anchors(): string {
    return this.pems().join('');
  }

  /** SHA-256, in hex, the present one first. */
  get fingerprints(): readonly string[] {
    return this.pems().map(fingerprint);
  }

  /** As TLS takes it. */
  get server(): KeyAndCertificate {
    const { server, retiring } = this.files;
    return retiring === undefined ? server : { ...server, certificate: `${server.certificate}${retiring.cross}` };
  }

  /** When what was certified for an agent at `now` ends. */
  agentCertificateEnd(now: WallClock): WallClock {
    return Math.min(now + this.agentLife, endOf(new X509Certificate(this.files.authority.certificate)));
  }

  /** Called after each change. */
  onChange(listener: () => void): void {
    this.listeners.push(listener);
  }

  /** Renews the server's certificate if it is time. */
  renewServer(now: WallClock): boolean {
    const server = presentServer(this.dataDir, this.files, now);
    if (server.certificate === this.files.server.certificate) return false;
    this.change({ ...this.files, server });
    return true;
  }

  /** A new authority, the given one or one of its own, takes over. @throws ApiError, CertificateError */
  rotate(now: WallClock, given?: KeyAndCertificate): void {
    const { authority: before, retiring } = this.files;
    if (retiring !== undefined) {
      throw new ApiError(
        409,
        'STAYPUT_CA_ROLLOVER',
        'a roll-over is going on already; see "stayput mapserver ca show", and "ca retire" to end it',
      );
    }
    const next = given ?? createAuthority('', now, new X509Certificate(before.certificate));
    if (fingerprint(next.certificate) === fingerprint(before.certificate)) {
      throw new ApiError(409, 'STAYPUT_CA_SAME', 'this is the authority that the overlay has already');
    }
    const cross = crossCertify(before, next.certificate, now);
    const files = { ...this.files, authority: next, retiring: { certificate: before.certificate, cross, since: now } };
    // In this order: a server certificate of another authority is replaced when the files are opened.
    writeOverlay(this.dataDir, files);
    this.change({ ...files, server: presentServer(this.dataDir, files, now) });
  }

  /** The authority before is trusted no more. @throws ApiError */
  retire(): void {
    const { retiring, ...files } = this.files;
    if (retiring === undefined) throw new ApiError(409, 'STAYPUT_CA_ROLLOVER', 'no certificate authority is retiring');
    writeOverlay(this.dataDir, files);
    this.change(files);
  }

  /** Agents that would be refused if the authority before were retired now. */
  dependents(agents: readonly AgentRecord[], now: WallClock): number {
    const { retiring } = this.files;
    if (retiring === undefined) return 0;
    const present = fingerprint(this.files.authority.certificate);
    return agents.filter(({ revokedAt, certificate }) => {
      if (revokedAt !== undefined) return false;
      // Of one enrolled by an older version only its longest life is known.
      if (certificate === undefined) return retiring.since + this.agentLife + CLOCK_SKEW > now;
      return certificate.authority !== present && certificate.notAfter + CLOCK_SKEW > now;
    }).length;
  }

  view(agents: readonly AgentRecord[], now: WallClock): Record<string, unknown> {
    const { authority, retiring, server } = this.files;
    return {
      authority: describe(authority.certificate),
      retiring:
        retiring === undefined
          ? null
          : {
              ...describe(retiring.certificate),
              since: retiring.since,
              dependents: this.dependents(agents, now),
            },
      server: { notAfter: endOf(new X509Certificate(server.certificate)) },
    };
  }

  /** When the authority and the server's certificate end. */
  ends(): { readonly authority: WallClock; readonly server: WallClock } {
    const { authority, server } = this.files;
    const end = (pem: string): WallClock => endOf(new X509Certificate(pem));
    return { authority: end(authority.certificate), server: end(server.certificate) };
  }

  get isRollingOver(): boolean {
    return this.files.retiring !== undefined;
  }

  private parsed(): readonly X509Certificate[] {
    return this.pems().map((pem) => new X509Certificate(pem));
  }

  private pems(): string[] {
    const { authority, retiring } = this.files;
    return retiring === undefined ? [authority.certificate] : [authority.certificate, retiring.certificate];
  }

  private change(files: OverlayFiles): void {
    this.files = files;
    this.certificates = this.parsed();
    for (const listener of this.listeners) listener();
  }
}

function describe(pem: string): AuthorityView {
  const certificate = new X509Certificate(pem);
  return {
    fingerprint: fingerprint(pem),
    subject: nameOf(certificate),
    issuer: certificate.issuer.split('\n').join(', '),
    notBefore: startOf(certificate),
    notAfter: endOf(certificate),
  };
}
