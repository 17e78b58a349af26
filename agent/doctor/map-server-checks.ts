/** Checks of the way to the map server: whether it is there, is the right one, and has the same time. */
import { request } from 'node:https';
import { isIP } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { z } from 'zod';
import { type IpAddress, type IpPrefix, parseIpAddress, prefixContains } from '../../proto/address.ts';
import type { Millis } from '../../proto/time.ts';
import { fail, type Outcome, ok, skipped, warn } from '../../runtime/finding.ts';
import { formatHostPort } from '../../runtime/host-port.ts';
import type { Subject } from './subject.ts';

/** One exchange with the map server that needs no rights there. */
export interface Contact {
  /** Null: there was no answer; `problem` says why. */
  readonly answer: {
    readonly address: string;
    /** From the request to the answer. */
    readonly ms: number;
    /** How far this host's clock is ahead, give or take a second; null: it does not say its time. */
    readonly aheadMs: number | null;
    /** Why its certificate is not one of the overlay; null when it is, or nobody knows yet which that is. */
    readonly untrusted: string | null;
    /** UDP ports of its reflector; none when it has none, or is too old to say. */
    readonly reflector: readonly number[];
  } | null;
  readonly problem: string | null;
}

/**
 * Whom we ask is judged afterwards, so that one that is the wrong one can be told from one that is away. `patience`:
 * until the end of its answer.
 */
export function contact(mapServer: NonNullable<Subject['mapServer']>, patience: Millis = TIMEOUT): Promise<Contact> {
  const { host, port, ca } = mapServer;
  return new Promise((resolve) => {
    const started = performance.now();
    const asked = Date.now();
    const finish = (found: Contact): void => {
      clearTimeout(timer);
      resolve(found);
    };
    const failed = (error: Error): void => finish({ answer: null, problem: describe(error) });
    const outgoing = request(
      {
        host,
        port,
        path: '/v1/ca',
        rejectUnauthorized: false,
        ...(ca === null ? {} : { ca, allowPartialTrustChain: true }),
        ...(isIP(host) === 0 ? { servername: host } : {}),
        agent: false,
      },
      (response) => {
        const socket = response.socket as TLSSocket;
        const ms = performance.now() - started;
        const address = socket.remoteAddress ?? '';
        const date = Date.parse(response.headers.date ?? '');
        const untrusted = ca === null || socket.authorized ? null : String(socket.authorizationError);
        let body = '';
        response.setEncoding('utf8');
        response.on('data', (part: string) => {
          if (body.length < LARGEST_ANSWER) body += part;
        });
        // Cut off in the middle of it.
        response.on('error', failed);
        response.on('end', () =>
          finish({
            answer: {
              address,
              ms,
              // Its time is in whole seconds, cut off.
              aheadMs: Number.isFinite(date) ? asked + ms / 2 - (date + 500) : null,
              untrusted,
              reflector: reflectorOf(body),
            },
            problem: null,
          }),
        );
      },
    );
    const timer = setTimeout(() => outgoing.destroy(new Error('no answer in time')), patience);
    outgoing.on('error', failed);
    outgoing.end();
  });
}

export function checkMapServer(subject: Subject, found: Contact | null): readonly Outcome[] {
  const { mapServer } = subject;
  if (mapServer === null || found === null) return [skipped('none is known here: give it with --map-server URL')];
  const where = formatHostPort(mapServer.host, mapServer.port);
  if (found.answer === null) {
    const advice = `is it running, and does every firewall between let TCP ${mapServer.port} pass? Try: nc -vz ${mapServer.host} ${mapServer.port}`;
    return [fail(`${where}: ${found.problem}`, advice)];
  }
  const { address, ms, untrusted } = found.answer;
  if (untrusted !== null) {
    return [
      fail(
        `${where} is not the map server of this overlay (${untrusted})`,
        'who answers there? stayput doctor clock, if its certificate seems not valid yet',
      ),
    ];
  }
  const inside = subject.overlay.find((prefix) => isInside(address, prefix));
  if (inside !== undefined) {
    return [
      fail(
        `${where} has the address ${address} of the overlay`,
        `reach it by an address outside of ${inside}: the tunnel needs it to begin`,
      ),
    ];
  }
  return [ok(`${where} answers from ${address} in ${ms.toFixed(0)} ms`)];
}

export function checkClock(found: Contact | null): readonly Outcome[] {
  const aheadMs = found?.answer?.aheadMs;
  if (aheadMs === undefined) return [skipped('the map server does not answer')];
  if (aheadMs === null) return [skipped('what answers there does not say its time')];
  const seconds = Math.round(Math.abs(aheadMs) / 1000);
  const text = `this clock is ${seconds} s ${aheadMs > 0 ? 'ahead of' : 'behind'} that of the map server`;
  if (Math.abs(aheadMs) > WRONG)
    return [fail(text, 'set it, or certificates seem ended or not valid yet: sudo timedatectl set-ntp true')];
  if (Math.abs(aheadMs) > OFF) return [warn(text, 'let NTP set it: sudo timedatectl set-ntp true')];
  return [ok('the same as at the map server, to a second or two')];
}

function reflectorOf(body: string): readonly number[] {
  try {
    return REFLECTOR.parse(JSON.parse(body)).reflector;
  } catch {
    return [];
  }
}

function isInside(address: string, prefix: string): boolean {
  try {
    return prefixContains(prefix as IpPrefix, parseIpAddress(address.replace(/^::ffff:/, '')) as IpAddress);
  } catch {
    return false;
  }
}

function describe(error: Error): string {
  const { code } = error as NodeJS.ErrnoException;
  const known: Readonly<Record<string, string>> = {
    ECONNREFUSED: 'nobody listens there (ECONNREFUSED)',
    ENOTFOUND: 'the name does not resolve (ENOTFOUND)',
    EAI_AGAIN: 'the name cannot be resolved now (EAI_AGAIN)',
    EHOSTUNREACH: 'no way there (EHOSTUNREACH)',
    ENETUNREACH: 'no route there (ENETUNREACH)',
    ECONNRESET: 'the connection was cut (ECONNRESET)',
  };
  return (code === undefined ? undefined : known[code]) ?? error.message.split('\n', 1)[0] ?? '';
}

const REFLECTOR = z.object({ reflector: z.array(z.int().min(1).max(65_535)).max(8) });
/** Characters. */
const LARGEST_ANSWER = 131_072;
const TIMEOUT: Millis = 5_000;
/** Milliseconds. */
const OFF = 5_000;
/** Certificates are made to hold from five minutes before. */
const WRONG = 300_000;
