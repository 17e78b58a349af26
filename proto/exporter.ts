/**
 * What an agent says of itself for those who watch the overlay: where its metrics are, and what a list of agents is
 * sorted by. Nothing is decided by it. It goes as JSON in a text frame to map servers whose welcome asks for it.
 */
import type { IpAddress } from './address.ts';

export interface ExporterNotice {
  readonly type: 'exporter';
  /** Null: they are off, or not to be reached from other hosts. `address` null: where the session comes from. */
  readonly metrics: { readonly address: IpAddress | null; readonly port: number } | null;
  readonly hostname: string;
  readonly version: string;
  /** Of the cloud or hypervisor below; null while nothing is known of it. */
  readonly place: Place | null;
}

export interface Place {
  readonly platform: string;
  readonly region: string | null;
  readonly zone: string | null;
  readonly instanceId: string | null;
}

/** What a word of a notice may be: it becomes a label. */
export const EXPORTER_WORD = /^[\x21-\x7e]{0,128}$/;

/** The word that comes closest: a host may have any name, and a notice that is wrong ends the session. */
export function exporterWord(text: string): string {
  return text.replace(/[^\x21-\x7e]/gu, '_').slice(0, 128);
}
