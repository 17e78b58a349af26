/** Everything in TypeScript that reads what others wrote. The data plane's own targets are in `dataplane/src/fuzz/`. */
import type { Decoder } from './decoder.ts';
import { OCTET_DECODERS } from './octet-decoders.ts';
import { TEXT_DECODERS } from './text-decoders.ts';

export const DECODERS: readonly Decoder[] = [...OCTET_DECODERS, ...TEXT_DECODERS];
