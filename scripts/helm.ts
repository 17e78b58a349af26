/** The chart in deploy/helm, rendered by Helm, and what YAML says, as Kubernetes reads it. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findProgram } from '../runtime/programs.ts';
import { PROJECT_ROOT } from '../runtime/project-root.ts';
import { run, StepFailed } from './steps.ts';

export const CHART = join(PROJECT_ROOT, 'deploy/helm/stayput');
/** Of the API that manifests are checked against; Helm built from source claims an old one. */
export const KUBERNETES_VERSION = '1.34.2';

/** Where Helm is; undefined if it is not. */
export function findHelm(): string | undefined {
  const built = join(PROJECT_ROOT, '.ci/container-tools/helm');
  return existsSync(built) ? built : findProgram('helm');
}

/** @throws StepFailed with what Helm said */
export function helm(...args: readonly string[]): string {
  const program = findHelm();
  if (program === undefined) throw new StepFailed('helm not found: sudo scripts/install-container-tools.sh');
  return run(program, args);
}

/** The objects of a release `stayput` in the namespace `stayput`, as YAML. @throws StepFailed */
export function renderChart(values: Readonly<Record<string, unknown>> = {}): string {
  const file = JSON.stringify(values);
  const folder = mkdtempSync(join(tmpdir(), 'stayput-helm-'));
  try {
    writeFileSync(join(folder, 'values.json'), file);
    const options = ['--namespace', 'stayput', '--kube-version', KUBERNETES_VERSION];
    return helm('template', 'stayput', CHART, ...options, '--values', join(folder, 'values.json'));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The documents of a YAML text, by the parser that Kubernetes has. @throws StepFailed */
export function parseYaml(text: string): unknown[] {
  const folder = mkdtempSync(join(tmpdir(), 'stayput-helm-'));
  try {
    mkdirSync(join(folder, 'templates'));
    writeFileSync(join(folder, 'Chart.yaml'), 'apiVersion: v2\nname: reader\nversion: 0.0.0\n');
    const documents = text.split(/^---$/m).filter((document) => /^[^#\s]/m.test(document));
    documents.forEach((document, i) => {
      writeFileSync(join(folder, `${i}.yaml`), document);
    });
    const read =
      '{{ $documents := list }}{{ range $i := until COUNT }}{{ $documents = append $documents (printf "%d.yaml" $i | $.Files.Get | fromYaml) }}{{ end }}documents: {{ $documents | toJson }}';
    writeFileSync(join(folder, 'templates/out.yaml'), read.replace('COUNT', String(documents.length)));
    const json = /^documents: (.*)$/m.exec(helm('template', 'reader', folder))?.[1] ?? '[]';
    const objects = JSON.parse(json) as { Error?: string }[];
    for (const { Error: problem } of objects) if (problem !== undefined) throw new StepFailed(problem);
    return objects;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
