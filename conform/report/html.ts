/** A report as one page that needs nothing else. It holds the report as JSON too, so it can be verified like one. */
import type { Verdict } from '../engine.ts';
import { badge } from './badge.ts';
import { escaped } from './markup.ts';
import { GRADE_TEXT, grouped, type Report, summaryLine } from './report.ts';
import type { SignedReport } from './signature.ts';

export function htmlReport(report: Report | SignedReport): string {
  const groups = [...grouped(report.checks)].map(([name, checks]) => groupSection(name, checks)).join('\n');
  const settings = Object.entries(report.settings)
    .map(([key, value]) => `<tr><th>${escaped(key)}</th><td>${escaped(value)}</td></tr>`)
    .join('');
  const signed =
    'signature' in report
      ? `Signed with the Ed25519 key <code>${escaped(report.signature.publicKey)}</code>.`
      : 'Not signed.';
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>${escaped(summaryLine(report))}</title>
<style>${STYLE}</style></head><body>
<h1>${escaped(report.target)} as ${escaped(report.role)}</h1>
<p>${badge(report)}</p>
<p>${escaped(GRADE_TEXT[report.grade])}. ${escaped(report.tool)}, ${escaped(report.startedAt)} to ${escaped(report.endedAt)}; ${report.sent} sent. ${signed}</p>
<table>${settings}</table>
${groups}
<script type="application/json" id="report">${JSON.stringify(report).replace(/</g, '\\u003c')}</script>
</body></html>
`;
}

function groupSection(name: string, checks: readonly Verdict[]): string {
  const passed = checks.filter(({ outcome }) => outcome === 'passed').length;
  const open = passed === checks.length ? '' : ' open';
  return `<details${open}><summary>${escaped(name)} ${passed}/${checks.length}</summary>
<table><tr><th>ID</th><th>Level</th><th>Source</th><th>Check</th><th>Outcome</th></tr>
${checks.map(row).join('\n')}
</table></details>`;
}

function row({ id, level, source, title, sent, expected, outcome, seen }: Verdict): string {
  return `<tr class="${outcome}"><td>${id}</td><td>${level}</td><td>${escaped(source)}</td><td><b>${escaped(title)}</b><br>Sent: ${escaped(sent)}<br>Expected: ${escaped(expected)}<br>Seen: ${escaped(seen)}</td><td>${outcome}</td></tr>`;
}

const STYLE = `body{font:14px/1.4 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#1b1b1b;background:#fff}
table{border-collapse:collapse;margin:.5em 0 1em}td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left;vertical-align:top}
summary{font-weight:600;font-size:1.1em;cursor:pointer;margin:.6em 0}
.passed td:last-child{background:#d7f0dc}.failed td:last-child{background:#f7cfcb}.broken td:last-child{background:#f3dfb5}.not-tried td:last-child{background:#e6e6e6}`;
