/**
 * Files with one TSIG key, in the form of `tsig-keygen`, `dig -k` and `nsupdate -k`:
 *
 *     key "NAME" { algorithm hmac-sha256; secret "BASE64"; };
 */
import { readFileSync, statSync } from 'node:fs';
import { parseDomainName } from '../../proto/dns/name.ts';
import { TSIG_ALGORITHMS, type TsigAlgorithm, type TsigKey } from '../../proto/dns/tsig.ts';
import { DecodeError, UsageError } from '../../proto/errors.ts';

/** @throws UsageError when it cannot be read, others may read it, or it holds no key */
export function readTsigKeyFile(path: string): TsigKey {
  let text: string;
  try {
    const { mode, size } = statSync(path);
    if ((mode & 0o077) !== 0) throw new UsageError(`${path} holds a secret and may be read by others: chmod 600 it`);
    if (size > MAX_FILE) throw new UsageError(`${path} is not a file with one TSIG key`);
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    if (cause instanceof UsageError) throw cause;
    throw new UsageError(`${path} cannot be read (${(cause as Error).message})`, { cause });
  }
  try {
    return parseTsigKey(text);
  } catch (cause) {
    if (cause instanceof DecodeError) throw new UsageError(`${path}: ${cause.message}`, { cause });
    throw cause;
  }
}

/** @throws DecodeError */
export function parseTsigKey(text: string): TsigKey {
  const [, name, body] = KEY.exec(text.replace(COMMENT, ' ')) ?? [];
  if (name === undefined || body === undefined) throw new DecodeError('key', 0, 'is not of the form key "NAME" { … };');
  const statements = new Map([...body.matchAll(STATEMENT)].map(([, word = '', value = '']) => [word, value] as const));
  const algorithm = statements.get('algorithm')?.toLowerCase() ?? '';
  const secret = statements.get('secret') ?? '';
  if (!isAlgorithm(algorithm)) {
    throw new DecodeError('algorithm', 0, `is not one of ${Object.keys(TSIG_ALGORITHMS).join(', ')}`);
  }
  const octets = Buffer.from(secret, 'base64');
  if (octets.toString('base64') !== secret || octets.length < MIN_SECRET) {
    throw new DecodeError('secret', 0, `is not base64 of at least ${MIN_SECRET} octets`);
  }
  return { name: parseDomainName(name), algorithm, secret: new Uint8Array(octets) };
}

function isAlgorithm(text: string): text is TsigAlgorithm {
  return Object.hasOwn(TSIG_ALGORITHMS, text);
}

/** At the start of a line only: base64 may have `//` in it. */
const COMMENT = /^\s*(?:\/\/|#).*/gm;
const KEY = /^\s*key\s+"?([^\s"{};]+)"?\s*\{([^{}]*)\}\s*;\s*$/;
const STATEMENT = /(\w+)\s+"?([^\s";]+)"?\s*;/g;
const MIN_SECRET = 16;
const MAX_FILE = 4096;
