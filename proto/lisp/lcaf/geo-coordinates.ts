/**
 * Geo-coordinates, type 5 (RFC 8060 4.3).
 *
 * ```
 * |N|    Latitude Degrees (15)    |  Minutes (8)  |  Seconds (8)  |   N: north
 * |E|   Longitude Degrees (15)    |  Minutes (8)  |  Seconds (8)  |   E: east
 * |                  Altitude (32), metres, signed                |   0x7fffffff = none
 * | address ...
 * ```
 *
 * What is not a place on Earth is handed out as it came: the mapping with it is still one.
 */
import type { Reader, Writer } from '../../bytes.ts';
import { within } from '../../bytes.ts';
import type { LispAddress } from '../afi.ts';
import { bit, isSet } from '../header.ts';
import type { LcafCodec } from './codec.ts';

export interface GeoCoordinates {
  readonly kind: 'geo';
  /** N when positive. */
  readonly latitude: Angle;
  /** E when positive. */
  readonly longitude: Angle;
  /** Metres; null: not told. */
  readonly altitude: number | null;
  readonly address: LispAddress;
}

export interface Angle {
  readonly positive: boolean;
  readonly degrees: number;
  readonly minutes: number;
  readonly seconds: number;
}

export const GEO: LcafCodec<GeoCoordinates> = {
  type: 5,
  kind: 'geo',
  decode: ({ reader, address }) => {
    const latitude = decodeAngle(reader, 'latitude');
    const longitude = decodeAngle(reader, 'longitude');
    const altitude = reader.u32('altitude');
    return {
      kind: 'geo',
      latitude,
      longitude,
      altitude: altitude === NO_ALTITUDE ? null : altitude | 0,
      address: address(),
    };
  },
  encode: (lcaf, { writer, address }) => {
    encodeAngle(lcaf.latitude, 'latitude', writer);
    encodeAngle(lcaf.longitude, 'longitude', writer);
    const { altitude } = lcaf;
    writer.u32(altitude === null ? NO_ALTITUDE : altitude < 0 ? altitude + 2 ** 32 : altitude, 'altitude');
    address(lcaf.address);
  },
};

function decodeAngle(reader: Reader, field: string): Angle {
  const degrees = reader.u16(field);
  return {
    positive: isSet(degrees, POSITIVE),
    degrees: degrees & DEGREES,
    minutes: reader.u8(field),
    seconds: reader.u8(field),
  };
}

function encodeAngle({ positive, degrees, minutes, seconds }: Angle, field: string, writer: Writer): void {
  writer.u16(bit(positive, POSITIVE) | within(degrees, DEGREES, field), field);
  writer.u8(minutes, field).u8(seconds, field);
}

const POSITIVE = 0x8000;
const DEGREES = 0x7fff;
const NO_ALTITUDE = 0x7fff_ffff;
