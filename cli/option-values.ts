/** Values of options, checked; what is wrong is said with the option's name. */
import { type IpPrefix, parseIpPrefix } from '../proto/address.ts';
import { DecodeError, UsageError } from '../proto/errors.ts';

export function prefixes(flag: string, texts: readonly string[]): IpPrefix[] {
  return texts.map((text) => typed(flag, () => parseIpPrefix(text)));
}

export function typed<T>(flag: string, parse: () => T): T {
  try {
    return parse();
  } catch (cause) {
    if (!(cause instanceof DecodeError)) throw cause;
    throw new UsageError(`${flag}: ${cause.message.replace(/^.* at offset \d+: /, '')}`, { cause });
  }
}

export function wholeNumber(flag: string, text: string, from: number, to: number): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < from || value > to) {
    throw new UsageError(`${flag}: "${text}" is not a whole number from ${from} to ${to}`);
  }
  return value;
}

export function duration(flag: string, text: string): number {
  const match = /^(\d{1,6})(s|m|h|d)$/.exec(text);
  const unit = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }[match?.[2] ?? ''];
  const value = Number(match?.[1]) * (unit ?? Number.NaN);
  if (!(value >= 1_000 && value <= 3650 * 86_400_000)) {
    throw new UsageError(`${flag}: "${text}" is not a duration such as 30m, 24h or 7d`);
  }
  return value;
}
