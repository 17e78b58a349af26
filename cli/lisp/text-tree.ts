/** Text with more about it below, further to the right. */
export interface Item {
  readonly text: string;
  readonly below: readonly Item[];
}

export function item(text: string, ...below: readonly (Item | string | undefined)[]): Item {
  const known = below.filter((part) => part !== undefined);
  return { text, below: known.map((part) => (typeof part === 'string' ? { text: part, below: [] } : part)) };
}

export function linesOf({ text, below }: Item, indent = ''): string[] {
  return [indent + text, ...below.flatMap((part) => linesOf(part, `${indent}  `))];
}

/** Parts in one line; what is not there is left out. */
export function parts(...texts: readonly (string | false | undefined)[]): string {
  return texts.filter((text) => text !== undefined && text !== false && text !== '').join(', ');
}

/** The first octets of many. */
export function octets(bytes: Uint8Array, most = 32): string {
  if (bytes.length === 0) return 'none';
  const text = Buffer.from(bytes.subarray(0, most)).toString('hex');
  return bytes.length > most ? `${text}… (${bytes.length} octets)` : text;
}

export function hexNumber(value: number | bigint, digits: number): string {
  return `0x${value.toString(16).padStart(digits, '0')}`;
}

/** What others wrote may hold control characters, which would reach the terminal. */
export function quoted(text: string): string {
  return JSON.stringify(text).replace(UNSEEN, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

const UNSEEN = /[\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
