/** What `npm audit --json` and `cargo audit --json` say. A report that is none means that nothing was looked at. */

export interface Audit {
  readonly result: 'no known vulnerabilities' | 'vulnerable' | 'skipped';
  /** The vulnerabilities, or why there was no answer. */
  readonly lines: readonly string[];
}

export function ofNpmAudit(stdout: string): Audit {
  const report = object(stdout);
  const found = report?.vulnerabilities;
  if (typeof found !== 'object' || found === null || report?.auditReportVersion === undefined) {
    return skipped(typeof report?.message === 'string' ? report.message : stdout);
  }
  const lines = Object.entries(found as Record<string, { severity?: string }>).map(
    ([name, { severity }]) => `${name}: ${severity ?? 'unknown severity'}`,
  );
  return { result: lines.length === 0 ? 'no known vulnerabilities' : 'vulnerable', lines };
}

export function ofCargoAudit(stdout: string, stderr: string): Audit {
  const report = object(stdout) as { vulnerabilities?: { list?: readonly CargoFinding[] } } | undefined;
  const list = report?.vulnerabilities?.list;
  if (!Array.isArray(list)) return skipped(stderr);
  const lines = (list as readonly CargoFinding[]).map(
    ({ advisory, package: crate }) => `${crate?.name} ${crate?.version}: ${advisory?.id} ${advisory?.title}`,
  );
  return { result: lines.length === 0 ? 'no known vulnerabilities' : 'vulnerable', lines };
}

interface CargoFinding {
  readonly advisory?: { readonly id: string; readonly title: string };
  readonly package?: { readonly name: string; readonly version: string };
}

function skipped(why: string): Audit {
  // An address says only where this machine asked.
  const line = why
    .trim()
    .split('\n', 1)[0]
    ?.replace(/https?:\/\/\S+/g, 'the registry');
  return { result: 'skipped', lines: [line === undefined || line === '' ? 'it gave no answer' : line] };
}

function object(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
