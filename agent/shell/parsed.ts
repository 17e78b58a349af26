import { z } from 'zod';

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
