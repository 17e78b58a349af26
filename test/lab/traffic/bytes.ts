/** The same bytes on every machine for the same length: the key stream of AES-256-CTR under a fixed key. */
import { createCipheriv, createHash } from 'node:crypto';

export class ByteStream {
  private readonly cipher = createCipheriv('aes-256-ctr', Buffer.alloc(32, 0x53), Buffer.alloc(16));

  next(length: number): Buffer {
    return this.cipher.update(Buffer.alloc(length));
  }
}

/** SHA-256, hex, of the first `length` bytes. */
export function sha256OfBytes(length: number): string {
  const stream = new ByteStream();
  const hash = createHash('sha256');
  for (let done = 0; done < length; ) {
    const chunk = stream.next(Math.min(length - done, 1 << 20));
    hash.update(chunk);
    done += chunk.length;
  }
  return hash.digest('hex');
}
