/** One run: a role's subject is opened, its checks are carried out, and what was found becomes a report. */
import { createSocket } from 'node:dgram';
import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import { UsageError } from '../proto/errors.ts';
import { formatHostPort } from '../runtime/host-port.ts';
import { VERSION } from '../runtime/project-root.ts';
import type { Check } from './check.ts';
import { runChecks, type Stage, type Verdict } from './engine.ts';
import type { UdpTarget } from './lisp/udp-port.ts';
import type { Pacer } from './pacer.ts';
import { makeReport, type Report } from './report/report.ts';

/** What a role brings: its checks, and stages for them. */
export interface Subject<S extends Stage> {
  readonly role: string;
  readonly checks: readonly Check<S>[];
  /** What the report says of how it was tested; no secrets. */
  readonly settings: Readonly<Record<string, string>>;
  stage(): Promise<S>;
}

export interface RunOptions {
  readonly target: UdpTarget;
  readonly pacer: Pacer;
  readonly parallel: number;
  /** Beginnings of check IDs; empty: all. */
  readonly only: readonly string[];
  readonly signal?: AbortSignal | undefined;
  readonly onVerdict?: (verdict: Verdict, done: number, all: number) => void;
}

/** @throws UsageError when no check is left */
export async function runConformance<S extends Stage>(subject: Subject<S>, options: RunOptions): Promise<Report> {
  const { target, pacer, parallel, only, signal, onVerdict } = options;
  const checks = subject.checks.filter(({ id }) => only.length === 0 || only.some((start) => id.startsWith(start)));
  if (checks.length === 0)
    throw new UsageError(`no check of the role ${subject.role} begins with ${only.join(' or ')}`);
  const startedAt = new Date().toISOString();
  const verdicts = await runChecks({
    checks,
    stage: () => subject.stage(),
    parallel,
    limitMs: CHECK_LIMIT,
    signal,
    ...(onVerdict === undefined ? {} : { onVerdict }),
  });
  const head = {
    tool: `stayput ${VERSION}`,
    role: subject.role,
    target: formatHostPort(target.address, target.port),
    startedAt,
    endedAt: new Date().toISOString(),
    settings: { ...subject.settings, ...(only.length === 0 ? {} : { only: only.join(', ') }) },
    sent: pacer.taken,
  };
  return makeReport(head, verdicts);
}

/** `host`, `host:port`, `[::1]:port`, or an IPv6 address without brackets. @throws UsageError */
export async function resolveTarget(text: string, defaultPort: number): Promise<UdpTarget> {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+))(?::(\d{1,5}))?$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? (/^[0-9a-fA-F:.]+$/.test(text) ? text : undefined);
  const port = match?.[3] === undefined ? defaultPort : Number(match[3]);
  if (host === undefined || port < 1 || port > 65535) throw new UsageError(`"${text}" is not HOST or HOST:PORT`);
  try {
    const { address, family } = await lookup(host);
    return { address, port, family: family === 6 ? 6 : 4 };
  } catch (cause) {
    throw new UsageError(`no address of ${host} is known`, { cause });
  }
}

/** The address that this machine sends to the target from. @throws UsageError when there is no way to it */
export async function localAddressFor({ address, port, family }: UdpTarget): Promise<string> {
  const socket = createSocket(family === 4 ? 'udp4' : 'udp6');
  try {
    socket.connect(port, address);
    await once(socket, 'connect');
    return socket.address().address;
  } catch (cause) {
    throw new UsageError(`there is no route to ${address}`, { cause });
  } finally {
    socket.close();
  }
}

/** Longer than all waits of one check together. */
const CHECK_LIMIT = 120_000;
