/**
 * Which certificate authorities this map server and its agents trust at the moment, and the certificates in use.
 *
 * There is one authority, and during a roll-over the one before as well. The new one issues everything from the start.
 * Agents that do not know it yet accept the server's certificate all the same, since the one before vouches for the new
 * one (a cross-certificate goes along); they learn of it in their session, and renew their own certificates. The one
 * before is retired when no valid certificate of it and no join token that names it can be left, or by order. So at no
 * time is there an agent that can be reached but not verified.
 */
import { X509Certificate } from 'node:crypto';
import type { Millis, WallClock } from '../../proto/time.ts';
import { ApiError } from '../../runtime/http-api.ts';
import { type AgentRecord, type StoreRecord, type TokenRecord, tokenState } from '../core/records.ts';
import {
  CLOCK_SKEW,
  createAuthority,
  crossCertify,
  endOf,
  fingerprint,
  fingerprintOf,
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

/** Who needs the authority that retires: so many agents, and the join tokens with these ids. */
export interface Dependents {
  readonly agents: number;
  readonly tokens: readonly string[];
}

export class Trust {
  private readonly dataDir: string;
  private readonly agentLife: Millis;
  private readonly renewableFor: Millis;
  private files: OverlayFiles;
  /** The present one first. */
  certificates: readonly X509Certificate[];
  /** SHA-256 of these, in hex. */
  fingerprints: readonly string[];
  private readonly listeners: (() => void)[] = [];

  /** `agentLife`: of the certificates that agents get. `renewableFor`: how long after their end they are renewed. */
  constructor(dataDir: string, files: OverlayFiles, agentLife: Millis, renewableFor: Millis) {
    this.dataDir = dataDir;
    this.files = files;
    this.agentLife = agentLife;
    this.renewableFor = renewableFor;
    this.certificates = this.parsed();
    this.fingerprints = this.certificates.map(fingerprintOf);
  }

  /** Issues everything. */
  get authority(): KeyAndCertificate {
    return this.files.authority;
  }

  /** PEM, the present one first. */
  get anchors(): string {
    return this.pems().join('');
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

  /** What happens by itself. */
  retireIfUnused(records: Iterable<StoreRecord>, now: WallClock): boolean {
    if (this.files.retiring === undefined) return false;
    const { agents, tokens } = this.dependents(records, now);
    if (agents > 0 || tokens.length > 0) return false;
    this.retire();
    return true;
  }

  /** Who would be refused if the authority before were retired now. */
  dependents(records: Iterable<StoreRecord>, now: WallClock): Dependents {
    const { authority, retiring } = this.files;
    let agents = 0;
    const tokens: string[] = [];
    if (retiring === undefined) return { agents, tokens };
    const present = fingerprint(authority.certificate);
    for (const record of records) {
      if (record.kind === 'agent' && this.agentDepends(record, present, retiring.since, now)) agents++;
      if (record.kind === 'token' && tokenDepends(record, present, retiring.since, now)) tokens.push(record.id);
    }
    return { agents, tokens };
  }

  private agentDepends(agent: AgentRecord, present: string, since: WallClock, now: WallClock): boolean {
    if (agent.revokedAt !== undefined) return false;
    // What it was given last it may never have received.
    const certificate = agent.formerCertificate ?? agent.certificate;
    // Of one enrolled by an older version only its longest life is known.
    const end = certificate?.notAfter ?? since + this.agentLife;
    return certificate?.authority !== present && end + this.renewableFor + CLOCK_SKEW > now;
  }

  view(records: Iterable<StoreRecord>, now: WallClock): Record<string, unknown> {
    const { authority, retiring, server } = this.files;
    return {
      authority: describe(authority.certificate),
      retiring:
        retiring === undefined
          ? null
          : {
              ...describe(retiring.certificate),
              since: retiring.since,
              dependents: this.dependents(records, now),
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
    this.fingerprints = this.certificates.map(fingerprintOf);
    for (const listener of this.listeners) listener();
  }
}

/** It names the authority that the joiner demands to see. */
function tokenDepends(token: TokenRecord, present: string, since: WallClock, now: WallClock): boolean {
  if (tokenState(token, now) !== 'valid') return false;
  // Of one made by an older version only its time is known.
  return token.authority === undefined ? token.createdAt <= since : token.authority !== present;
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
