/**
 * `node dist/scripts/kubernetes-schema.js SWAGGER VERSION > test/vectors/kubernetes-api.json`: of the OpenAPI description of a
 * Kubernetes version (api/openapi-spec/swagger.json of its source, as in `go mod download k8s.io/kubernetes@VERSION`) the
 * kinds that our manifests use, without what is written for people.
 */
import { readFileSync } from 'node:fs';
import { runScript, StepFailed } from './steps.ts';

const KIND = 'x-kubernetes-group-version-kind';

const KINDS: ReadonlySet<string> = new Set([
  '/v1 ConfigMap',
  '/v1 Namespace',
  '/v1 PersistentVolumeClaim',
  '/v1 Service',
  'apps/v1 DaemonSet',
  'apps/v1 Deployment',
  'networking.k8s.io/v1 NetworkPolicy',
]);

const ESSENTIAL: ReadonlySet<string> = new Set([
  '$ref',
  'additionalProperties',
  'enum',
  'format',
  'items',
  'properties',
  'required',
  'type',
  KIND,
]);

await runScript(async () => {
  const [file, version] = process.argv.slice(2);
  if (file === undefined || version === undefined) throw new StepFailed('name a swagger.json and its version');
  const { definitions } = JSON.parse(readFileSync(file, 'utf8')) as {
    definitions: Record<string, Definition>;
  };
  const kept = new Map<string, unknown>();
  const keep = (name: string): void => {
    if (kept.has(name)) return;
    kept.set(name, null);
    kept.set(name, essence(definitions[name], keep));
  };
  for (const [name, definition] of Object.entries(definitions)) {
    const kinds = definition[KIND] ?? [];
    if (kinds.some(({ group, version, kind }) => KINDS.has(`${group}/${version} ${kind}`))) keep(name);
  }
  const sorted = [...kept].sort(([a], [b]) => (a < b ? -1 : 1));
  console.log(JSON.stringify({ version, definitions: Object.fromEntries(sorted) }));
});

interface Definition {
  readonly [KIND]?: readonly { group: string; version: string; kind: string }[];
}

function essence(schema: unknown, refer: (name: string) => void): unknown {
  if (Array.isArray(schema)) return schema.map((each) => essence(each, refer));
  if (typeof schema !== 'object' || schema === null) return schema;
  return Object.fromEntries(
    Object.entries(schema)
      .filter(([key]) => ESSENTIAL.has(key))
      .map(([key, value]) => {
        if (key === '$ref') refer(String(value).replace('#/definitions/', ''));
        if (key === KIND) return [key, value];
        if (key !== 'properties') return [key, essence(value, refer)];
        const properties = Object.entries(value as object).map(([name, each]) => [name, essence(each, refer)]);
        return [key, Object.fromEntries(properties)];
      }),
  );
}
