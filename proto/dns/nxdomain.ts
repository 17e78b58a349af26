/**
 * "This name does not exist", said of a name above, as an answer for a name below it (RFC 8020): the question and the
 * SOA of the former answer, its names written out since the offsets are others now.
 */
import { DecodeError } from '../errors.ts';
import { type DnsMessage, type DnsQuestion, parseMessage, RCODE, TYPE } from './message.ts';
import { encodeName, readName } from './name.ts';

/** Undefined when there is no SOA that could be read, so that it could not be cached by those who get it. */
export function nxDomainBelow(above: DnsMessage, question: DnsQuestion): DnsMessage | undefined {
  const { bytes, records, answerCount, authorityCount } = above;
  const record = records.slice(answerCount, answerCount + authorityCount).find(({ type }) => type === TYPE.soa);
  if (record === undefined) return undefined;
  try {
    const owner = readName(bytes, record.start);
    const primary = readName(bytes, record.ttlOffset + 6);
    const mailbox = readName(bytes, primary.end);
    const numbers = bytes.subarray(mailbox.end, record.end);
    const rdata = [encodeName(primary.name), encodeName(mailbox.name), numbers];
    const length = rdata.reduce((sum, part) => sum + part.length, 0);
    if (numbers.length !== SOA_NUMBERS) return undefined;
    return parseMessage(
      Uint8Array.from([
        ...[0, 0, 0x80, 0x80 | RCODE.nxDomain, 0, 1, 0, 0, 0, 1, 0, 0],
        ...question.bytes,
        ...encodeName(owner.name),
        ...bytes.subarray(record.ttlOffset - 4, record.ttlOffset + 4),
        ...[length >> 8, length & 0xff],
        ...rdata.flatMap((part) => [...part]),
      ]),
    );
  } catch (error) {
    if (error instanceof DecodeError) return undefined;
    throw error;
  }
}

/** Serial, refresh, retry, expire, minimum. */
const SOA_NUMBERS = 20;
