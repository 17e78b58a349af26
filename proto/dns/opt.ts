/** OPT, the pseudo-record that carries EDNS over one hop (RFC 6891), as it goes out. */
import { viewOf } from '../bytes.ts';
import { OPT_DO, TYPE } from './message.ts';

/** Largest UDP message in either direction: fits one unfragmented IPv6 packet of 1280 octets. */
export const MAX_UDP = 1232;

/** `options`: as octets. */
export function optRecord(extendedRcode: number, dnssecOk: boolean, options: Uint8Array): Uint8Array {
  const record = new Uint8Array(OPT_SIZE + options.length);
  const view = viewOf(record);
  view.setUint16(1, TYPE.opt);
  view.setUint16(3, MAX_UDP);
  view.setUint32(5, ((extendedRcode << 24) >>> 0) + (dnssecOk ? OPT_DO : 0));
  view.setUint16(9, options.length);
  record.set(options, OPT_SIZE);
  return record;
}

/** Without options. */
const OPT_SIZE = 11;
