import { z } from 'zod';
import { parseIpPrefix } from '../../proto/address.ts';
import { overlayProblem } from '../../proto/overlay.ts';

/** A text that `parse` turns into a value; what `parse` throws becomes an issue of the schema. */
export function parsed<T>(parse: (text: string) => T, maxLength = 300) {
  return z
    .string()
    .max(maxLength)
    .transform((text, context): T => {
      try {
        return parse(text);
      } catch (error) {
        context.addIssue({ code: 'custom', message: (error as Error).message });
        return z.NEVER;
      }
    });
}

/** Plain data that `decode` turns into a value; what `decode` throws becomes an issue of the schema. */
export function decoded<T>(decode: (value: unknown) => T) {
  return z.json().transform((value, context): T => {
    try {
      return decode(value);
    } catch (error) {
      context.addIssue({ code: 'custom', message: (error as Error).message });
      return z.NEVER;
    }
  });
}

/** The overlay as a map server tells it: it becomes routes of this host, so it is not believed whatever it is. */
export const overlayPrefixes = z
  .array(
    parsed((text) => {
      const prefix = parseIpPrefix(text);
      const problem = overlayProblem(prefix);
      if (problem !== undefined) throw new Error(`${prefix} cannot be the overlay: ${problem}`);
      return prefix;
    }),
  )
  .min(1)
  .max(64);
