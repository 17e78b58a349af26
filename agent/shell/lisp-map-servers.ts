/** What the configuration says of LISP routers: the mapping systems of others with their keys from files, and RLOC-probes. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { UsageError } from '../../proto/errors.ts';
import { type Nonce, nonce } from '../../proto/lisp/header.ts';
import { seconds } from '../../proto/time.ts';
import type { AgentConfig } from '../config.ts';
import type { LispMapServer } from '../core/lisp-registrations.ts';
import type { LispElsewhere } from '../core/lisp-routers.ts';
import type { RlocProbing } from '../core/rloc-probes.ts';

/** Null for none. @throws UsageError when a key cannot be read */
export function lispElsewhere({ lisp }: AgentConfig): LispElsewhere | null {
  if (lisp.mapServers.length === 0) return null;
  return {
    mapServers: lisp.mapServers.flatMap(mapServer),
    mapResolvers: lisp.mapServers.map(({ address, port, resolve }) => ({ address, port, resolve })),
    firstNonce: nonce(BigInt(Date.now()) << 16n),
    randomNonce,
  };
}

/** Null for none. */
export function rlocProbing({ lisp }: AgentConfig): RlocProbing | null {
  const { intervalSeconds, timeoutMs, tries } = lisp.probes;
  if (lisp.plain.length === 0 || intervalSeconds === 0) return null;
  return { interval: seconds(intervalSeconds), timeout: timeoutMs, tries, randomNonce };
}

function randomNonce(): Nonce {
  return nonce(randomBytes(8).readBigUInt64BE());
}

type Configured = AgentConfig['lisp']['mapServers'][number];

function mapServer({ address, port, keyFile, keyId, algorithm, wholeDigest, eids }: Configured): LispMapServer[] {
  if (keyFile === null) return [];
  const made = wholeDigest ? ({ coverage: 'payload', length: 'full' } as const) : {};
  return [
    { address, port, signing: { keyId, algorithm: ALGORITHMS[algorithm], psk: readKey(keyFile), ...made }, eids },
  ];
}

/** One line. */
function readKey(file: string): Uint8Array {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new UsageError(`lisp.mapServers: ${file} cannot be read (${(cause as Error).message})`, { cause });
  }
  const key = Buffer.from(text.replace(/\r?\n$/, ''));
  if (key.length === 0) throw new UsageError(`lisp.mapServers: ${file} is empty`);
  return key;
}

const ALGORITHMS = { 'hmac-sha-256': 2, hkdf: 3 } as const;
