/** What a fuzz target promises, and how its outcomes are told apart. */
import { StayputError } from '../../proto/errors.ts';
import type { Form } from './mutation.ts';

export interface Decoder {
  /** Also the name of its corpus, `test/corpus/fuzz/NAME.txt`. */
  readonly name: string;
  readonly form: Form;
  /** Proper inputs. */
  readonly seeds: readonly Uint8Array[];
  /**
   * Decodes, and holds the result against what is promised of it. `described`, what is returned differs for inputs that
   * took different ways; those are worth further changes. The input changes afterwards.
   * @throws whatever must not have happened
   */
  readonly run: (input: Uint8Array) => unknown;
  /** Each execution costs a signature or the like. */
  readonly slow?: true;
}

type ErrorClass = new (...args: never[]) => StayputError;

/** What `decode` returns, or its refusal, which must be one of `refusals`. */
export function outcome(refusals: readonly ErrorClass[], decode: () => unknown): unknown {
  try {
    return decode();
  } catch (error) {
    if (!(error instanceof StayputError) || !refusals.some((kind) => error instanceof kind)) throw error;
    return error;
  }
}

/** An outcome as text, without what may be different in each. It costs as much as most decoders do. */
export function described(result: unknown): string {
  if (result instanceof StayputError) return `${result.code} ${result.message.slice(0, 200).replace(QUOTED, '')}`;
  return typeof result === 'string' ? result : shape(result, 0);
}

export function isRefusal(result: unknown): boolean {
  return result instanceof StayputError;
}

/**
 * For several decoders behind one name: which of so many is tried, and the input for it. An input says it in its first
 * octet, an upper-case letter; what begins with another octet is tried as it is, by the one that its length chooses.
 */
export function chosen(input: Uint8Array, count: number): { readonly which: number; readonly rest: Uint8Array } {
  const which = (input[0] ?? 0) - FIRST_CHOICE;
  if (which >= 0 && which < count) return { which, rest: input.subarray(1) };
  return { which: input.length % count, rest: input };
}

/** An input for the decoder `which`. */
export function choosing(which: number, input: Uint8Array): Uint8Array {
  return Uint8Array.from([FIRST_CHOICE + which, ...input]);
}

export function textOf(input: Uint8Array): string {
  return Buffer.from(input.buffer, input.byteOffset, input.length).toString('utf8');
}

export function octetsOf(...texts: readonly string[]): readonly Uint8Array[] {
  return texts.map((text) => Buffer.from(text));
}

export function jsonOf(...values: readonly unknown[]): readonly Uint8Array[] {
  return values.map((value) => Buffer.from(JSON.stringify(value)));
}

/** The members there are and how many, not what they say. */
function shape(value: unknown, depth: number): string {
  if (typeof value !== 'object' || value === null || depth > 4) return typeof value;
  if (ArrayBuffer.isView(value)) return 'octets';
  if (Array.isArray(value)) return `[${Math.min(value.length, 3)}${shape(value[0], depth + 1)}]`;
  let text = '{';
  for (const [name, member] of Object.entries(value)) {
    text += name.slice(0, 20);
    text += name === 'type' || name === 'kind' ? String(member).slice(0, 30) : shape(member, depth + 1);
  }
  return text;
}

const FIRST_CHOICE = 0x41;
/** What an error repeats of its input would make each of them a new one. */
const QUOTED = /\(.*|".*"|'.*'|[\d.:]+|[^\x20-\x7e]+/gs;
