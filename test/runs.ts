/**
 * How many cases a property is tried with: enough for every run of the CI to find what is wrong more than now and then.
 * A nightly run looks deeper: `STAYPUT_TEST_DEPTH=20 npm run test:unit`.
 */
export function runs(count: number): number {
  return Math.max(1, Math.round(count * DEPTH));
}

const DEPTH = Number(process.env.STAYPUT_TEST_DEPTH ?? 1);
// What is no number would be no case at all, and nobody would notice.
if (!(DEPTH > 0 && DEPTH < Number.POSITIVE_INFINITY)) throw new Error('STAYPUT_TEST_DEPTH is no number above 0');
