/** The badge: an SVG that says which profile a target passed, and when. */
import { escaped } from './markup.ts';
import { GRADE_TEXT, type Grade, type Report } from './report.ts';

export function badge(report: Report): string {
  const { passed } = report.counts;
  const left = `LISP ${report.role}`.replace('LISP dns', 'DNS');
  const right = `${GRADE_TEXT[report.grade]} ${passed}/${report.checks.length} · ${report.endedAt.slice(0, 10)}`;
  const [a, b] = [widthOf(left), widthOf(right)];
  const title = escaped(`${left}: ${right}`);
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${a + b}" height="20" role="img" aria-label="${title}">
<title>${title}</title>
<clipPath id="r"><rect width="${a + b}" height="20" rx="3"/></clipPath>
<g clip-path="url(#r)"><rect width="${a}" height="20" fill="#444"/><rect x="${a}" width="${b}" height="20" fill="${COLOURS[report.grade]}"/></g>
<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="${a / 2}" y="14">${escaped(left)}</text>
<text x="${a + b / 2}" y="14">${escaped(right)}</text>
</g>
</svg>
`;
}

/** Of text in that font, near enough. */
function widthOf(text: string): number {
  return Math.ceil(text.length * 6.7) + 12;
}

const COLOURS: Readonly<Record<Grade, string>> = {
  full: '#1a7f37',
  core: '#4c8c2b',
  incomplete: '#6e6e6e',
  failed: '#b3261e',
};
