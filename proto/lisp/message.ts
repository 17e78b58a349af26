/**
 * LISP control messages (RFC 9301, UDP port 4342), told apart by the first four bits.
 *
 * Decoding throws DecodeError and nothing else, whatever the octets; octets behind the end of a message are ignored.
 * Encoding throws EncodeError for values that have no encoding. For every message m that can be encoded,
 * `decodeLispMessage(encodeLispMessage(m))` equals m.
 */
import { EncodeError, Reader, Writer } from '../bytes.ts';
import { DecodeError } from '../errors.ts';
import { decodeEcm, type EncapsulatedControl, encodeEcm } from './ecm.ts';
import { TYPE } from './header.ts';
import { decodeInfo, encodeInfo, type InfoReply, type InfoRequest } from './info-request.ts';
import {
  decodeMapNotify,
  decodeMapNotifyAck,
  encodeMapNotify,
  type MapNotify,
  type MapNotifyAck,
} from './map-notify.ts';
import { decodeMapReferral, encodeMapReferral, type MapReferral } from './map-referral.ts';
import { decodeMapRegister, encodeMapRegister, type MapRegister } from './map-register.ts';
import { decodeMapReply, encodeMapReply, type MapReply } from './map-reply.ts';
import { decodeMapRequest, encodeMapRequest, type MapRequest } from './map-request.ts';
import { decodeSharedExtension, encodeSharedExtension, type SharedExtension } from './shared-extension.ts';

export type LispMessage =
  | MapRequest
  | MapReply
  | MapRegister
  | MapNotify
  | MapNotifyAck
  | MapReferral
  | EncapsulatedControl
  | InfoRequest
  | InfoReply
  | SharedExtension;

/** @throws DecodeError */
export function decodeLispMessage(bytes: Uint8Array): LispMessage {
  const type = (bytes[0] ?? 0) >> 4;
  const reader = new Reader(bytes);
  switch (type) {
    case TYPE.mapRequest:
      return decodeMapRequest(reader);
    case TYPE.mapReply:
      return decodeMapReply(reader);
    case TYPE.mapRegister:
      return decodeMapRegister(reader);
    case TYPE.mapNotify:
      return decodeMapNotify(reader);
    case TYPE.mapNotifyAck:
      return decodeMapNotifyAck(reader);
    case TYPE.mapReferral:
      return decodeMapReferral(reader);
    case TYPE.info:
      return decodeInfo(reader);
    case TYPE.encapsulatedControl:
      return decodeEcm(reader);
    case TYPE.sharedExtension:
      return decodeSharedExtension(reader);
    default:
      throw new DecodeError('message type', 0, bytes.length === 0 ? 'empty message' : `${type} is unknown`);
  }
}

/** @throws EncodeError */
export function encodeLispMessage(message: LispMessage): Uint8Array {
  const writer = new Writer();
  switch (message.type) {
    case 'map-request':
      encodeMapRequest(message, writer);
      break;
    case 'map-reply':
      encodeMapReply(message, writer);
      break;
    case 'map-register':
      encodeMapRegister(message, writer);
      break;
    case 'map-notify':
    case 'map-notify-ack':
      encodeMapNotify(message, writer);
      break;
    case 'map-referral':
      encodeMapReferral(message, writer);
      break;
    case 'info-request':
    case 'info-reply':
      encodeInfo(message, writer);
      break;
    case 'encapsulated-control':
      encodeEcm(message, writer);
      break;
    case 'shared-extension':
      encodeSharedExtension(message, writer);
      break;
    default:
      throw unknownType(message);
  }
  return writer.finish();
}

/** The control message inside an ECM; another ECM is refused. @throws DecodeError */
export function encapsulatedMessage(ecm: EncapsulatedControl): Exclude<LispMessage, EncapsulatedControl> {
  const message = decodeLispMessage(ecm.payload);
  if (message.type === 'encapsulated-control') throw new DecodeError('inner message', 0, 'is encapsulated again');
  return message;
}

function unknownType(message: never): EncodeError {
  return new EncodeError('message type', `unknown in ${JSON.stringify(message)}`);
}
