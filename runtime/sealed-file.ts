/**
 * Files that only a passphrase opens: a line that says what it is, a line with the parameters as JSON, then the content
 * encrypted with AES-256-GCM under a key that scrypt (RFC 7914) makes of the passphrase. Both lines are authenticated.
 */
import { createCipheriv, createDecipheriv, randomBytes, scryptSync } from 'node:crypto';
import { z } from 'zod';
import { StayputError } from '../proto/errors.ts';

export class SealError extends StayputError {
  constructor(problem: string, options?: ErrorOptions) {
    super('STAYPUT_SEALED_FILE', problem, options);
  }
}

export function seal(content: Uint8Array, passphrase: string): Buffer {
  const salt = randomBytes(16);
  const iv = randomBytes(IV);
  const parameters: Parameters = { n: COST, r: 8, p: 1, salt: salt.toString('base64'), iv: iv.toString('base64') };
  const head = Buffer.from(`${MAGIC}\n${JSON.stringify(parameters)}\n`);
  const cipher = createCipheriv('aes-256-gcm', keyOf(passphrase, parameters), iv).setAAD(head);
  return Buffer.concat([head, cipher.update(content), cipher.final(), cipher.getAuthTag()]);
}

export function isSealed(file: Buffer): boolean {
  return file.subarray(0, MAGIC.length + 1).toString('latin1') === `${MAGIC}\n`;
}

/** @throws SealError: the passphrase is another one, or the file was changed */
export function unseal(file: Buffer, passphrase: string): Buffer {
  const end = file.indexOf('\n', MAGIC.length + 1);
  if (!isSealed(file) || end < 0 || end > LONGEST_HEAD || file.length < end + 1 + TAG) {
    throw new SealError('the file is not whole');
  }
  const head = file.subarray(0, end + 1);
  const parameters = parametersOf(head.subarray(MAGIC.length + 1).toString('utf8'));
  const iv = Buffer.from(parameters.iv, 'base64');
  const decipher = createDecipheriv('aes-256-gcm', keyOf(passphrase, parameters), iv)
    .setAAD(head)
    .setAuthTag(file.subarray(-TAG));
  const content = decipher.update(file.subarray(end + 1, -TAG));
  try {
    decipher.final();
  } catch (cause) {
    throw new SealError('the passphrase is another one, or the file was changed', { cause });
  }
  return content;
}

type Parameters = z.output<typeof PARAMETERS>;

function parametersOf(text: string): Parameters {
  try {
    return PARAMETERS.parse(JSON.parse(text));
  } catch (cause) {
    throw new SealError('the file is damaged', { cause });
  }
}

function keyOf(passphrase: string, { n, r, p, salt }: Parameters): Buffer {
  return scryptSync(passphrase.normalize('NFC'), Buffer.from(salt, 'base64'), 32, { N: n, r, p, maxmem: MEMORY });
}

/** What a file may ask for is bounded: it may come from anybody. */
const PARAMETERS = z.strictObject({
  n: z.union([z.literal(2 ** 15), z.literal(2 ** 16), z.literal(2 ** 17)]),
  r: z.literal(8),
  p: z.literal(1),
  salt: z.base64().min(24).max(64),
  iv: z.base64().length(16),
});

const MAGIC = 'STAYPUT-SEALED-1';
const COST = 2 ** 17;
const MEMORY = 256 * 1024 * 1024;
const IV = 12;
const TAG = 16;
const LONGEST_HEAD = 1024;
