/** Which lines two texts have not in common. */

export interface ChangedLine {
  readonly sign: '-' | '+';
  /** From 1, in the text that has it. */
  readonly line: number;
  readonly text: string;
}

/** In the order of reading; few lines are told as changed, the fewest unless the texts are large. */
export function diffLines(before: string, after: string): ChangedLine[] {
  const [old, now] = [linesOf(before), linesOf(after)];
  let head = 0;
  while (head < old.length && head < now.length && old[head] === now[head]) head++;
  let tail = 0;
  while (tail < Math.min(old.length, now.length) - head && old.at(-1 - tail) === now.at(-1 - tail)) tail++;
  const changes: ChangedLine[] = [];
  let [i, j] = [head, head];
  const [endOld, endNow] = [old.length - tail, now.length - tail];
  const common = commonLengths(old.slice(head, endOld), now.slice(head, endNow));
  const kept = (at: number, against: number): number => common[at - head]?.[against - head] ?? 0;
  while (i < endOld || j < endNow) {
    if (i < endOld && j < endNow && old[i] === now[j]) {
      i++;
      j++;
    } else if (i < endOld && (j >= endNow || kept(i + 1, j) >= kept(i, j + 1))) {
      changes.push({ sign: '-', line: i + 1, text: old[i] ?? '' });
      i++;
    } else {
      changes.push({ sign: '+', line: j + 1, text: now[j] ?? '' });
      j++;
    }
  }
  return changes;
}

/** Lengths of the longest common subsequences of all pairs of ends; none for large texts. */
function commonLengths(a: readonly string[], b: readonly string[]): Uint32Array[] {
  if (a.length * b.length > MAX_CELLS) return [];
  const table = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    const [row, below] = [table[i], table[i + 1]];
    if (row === undefined || below === undefined) continue;
    for (let j = b.length - 1; j >= 0; j--) {
      row[j] = a[i] === b[j] ? (below[j + 1] ?? 0) + 1 : Math.max(below[j] ?? 0, row[j + 1] ?? 0);
    }
  }
  return table;
}

function linesOf(text: string): string[] {
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  return lines;
}

const MAX_CELLS = 4_000_000;
