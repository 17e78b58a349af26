/** The Map-Servers of others that the configuration names, with their keys from files. */
import { readFileSync } from 'node:fs';
import { UsageError } from '../../proto/errors.ts';
import type { AgentConfig } from '../config.ts';
import type { LispMapServer } from '../core/lisp-registrations.ts';

/** @throws UsageError when a key cannot be read */
export function lispMapServers({ lisp }: AgentConfig): readonly LispMapServer[] {
  return lisp.mapServers.map(({ address, port, keyFile, keyId, algorithm, wholeDigest, eids }) => {
    const psk = readKey(keyFile);
    const made = wholeDigest ? ({ coverage: 'payload', length: 'full' } as const) : {};
    return { address, port, signing: { keyId, algorithm: ALGORITHMS[algorithm], psk, ...made }, eids };
  });
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
