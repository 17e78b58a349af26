/** RDATA of the records that we give out, by dns-packet. Its decoder sees nothing from the network. */
import { type Answer, encode } from 'dns-packet';
import { Writer } from '../proto/bytes.ts';
import type { DnsRecord, RecordEncoder } from '../proto/dns/reply.ts';

export const encodeRecord: RecordEncoder = (record) => {
  if (record.type === 'other') return encodeOther(record.number, record.ttl, record.data);
  const message = encode({ type: 'response', answers: [toAnswer(record)] });
  return new Uint8Array(message.subarray(HEADER_AND_ROOT));
};

function encodeOther(type: number, ttl: number, data: Uint8Array): Uint8Array {
  return new Writer()
    .u16(type, 'TYPE')
    .u16(CLASS_IN, 'CLASS')
    .u32(ttl, 'TTL')
    .u16(data.length, 'RDLENGTH')
    .bytes(data)
    .finish();
}

function toAnswer(record: Exclude<DnsRecord, { type: 'other' }>): Answer {
  const common = { name: '.', ttl: record.ttl, class: 'IN' } as const;
  switch (record.type) {
    case 'A':
    case 'AAAA':
      return { ...common, type: record.type, data: record.address };
    case 'PTR':
    case 'NS':
    case 'CNAME':
      return { ...common, type: record.type, data: record.target };
    case 'SRV': {
      const { priority, weight, port, target } = record;
      return { ...common, type: 'SRV', data: { priority, weight, port, target } };
    }
    case 'TXT':
      return { ...common, type: 'TXT', data: strings(record.text) };
    case 'SOA':
      return {
        ...common,
        type: 'SOA',
        data: {
          mname: record.primary,
          rname: record.mailbox,
          serial: 1,
          refresh: 3600,
          retry: 600,
          expire: 86_400,
          minimum: record.minimum,
        },
      };
    default:
      return record satisfies never;
  }
}

/** A string of TXT has at most 255 octets. */
function strings(text: string): string[] {
  const parts = text.match(/.{1,255}/g);
  return parts === null ? [''] : [...parts];
}

const CLASS_IN = 1;
/** The message starts with its header and the owner `.`, which the core replaces. */
const HEADER_AND_ROOT = 12 + 1;
