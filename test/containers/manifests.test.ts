/** The chart and the plain manifests: what Kubernetes' API takes, with the rights that docs/containers.md names. */
import assert from 'node:assert/strict';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { AGENT_CONFIG } from '../../agent/config.ts';
import { CONFIG as MAP_SERVER_CONFIG } from '../../mapserver/config.ts';
import { PROJECT_ROOT, VERSION } from '../../runtime/project-root.ts';
import { CHART, findHelm, helm, KUBERNETES_VERSION, parseYaml, renderChart } from '../../scripts/helm.ts';
import { MANIFESTS, plainManifests } from '../../scripts/kubernetes-manifests.ts';
import { temporaryFolder } from '../runtime/temporary-folder.ts';
import { API_VERSION, type KubernetesObject, problemsOf } from './kubernetes-api.ts';

const skip = findHelm() === undefined ? 'helm not found: sudo scripts/install-container-tools.sh' : false;

describe('the check of manifests', () => {
  it('is by the API of the version that the chart is rendered for', () => {
    assert.equal(API_VERSION, KUBERNETES_VERSION);
  });

  it('finds unknown fields, wrong types and what is missing', () => {
    const metadata = { name: 'x' };
    const wrong = { apiVersion: 'v1', kind: 'Service', metadata, spec: { ports: [{ name: 5 }], portz: [] } };
    assert.deepEqual(problemsOf(wrong), [
      'Service x.spec.ports[0].port: missing',
      'Service x.spec.ports[0].name: not a string',
      'Service x.spec.portz: unknown',
    ]);
    assert.deepEqual(problemsOf({ apiVersion: 'v2', kind: 'Service', metadata }), [
      'Service x: there is no Service in v2',
    ]);
  });
});

describe('the Containerfile', () => {
  it('labels images with the version of the program', () => {
    const text = readFileSync(join(PROJECT_ROOT, 'deploy/container/Containerfile'), 'utf8');
    const versions = [...text.matchAll(/^ARG VERSION=(.*)$/gm)].map(([, version]) => version);
    assert.deepEqual(versions, [VERSION, VERSION, VERSION]);
  });
});

describe('the chart', { skip }, () => {
  it('has no lints', () => {
    assert.match(helm('lint', '--strict', '--kube-version', KUBERNETES_VERSION, CHART), /, 0 chart\(s\) failed/);
  });

  it('is of the version of the program', () => {
    const [chart] = parseYaml(readFileSync(join(CHART, 'Chart.yaml'), 'utf8')) as [Record<string, string>];
    assert.deepEqual([chart.version, chart.appVersion], [VERSION, VERSION]);
  });

  it('is what the plain manifests are made of', () => {
    for (const [name, text] of plainManifests())
      assert.equal(readFileSync(join(MANIFESTS, name), 'utf8'), text, 'run `npm run manifests`');
  });

  for (const [what, values] of [
    ['its own values', {}],
    [
      'an agent for a map server elsewhere, with DNS',
      {
        mapserver: { enabled: false },
        agent: {
          mapServer: 'https://map.example.org',
          nameSuffix: '',
          config: { dns: { enabled: true, listen: ['127.0.0.1:5300'] }, listenPort: 4351 },
          nodeSelector: { a: 'b' },
          tolerations: [{ operator: 'Exists' }],
          podAnnotations: { a: 'b' },
        },
        dataplane: { privileged: true, options: ['--log', 'debug'] },
        image: { registry: 'registry.example/x', tag: '1', pullSecrets: [{ name: 'x' }] },
      },
    ],
    [
      'a map server behind a load balancer that speaks LISP',
      {
        agent: { enabled: false },
        mapserver: {
          hosts: ['map.example.org', '192.0.2.1'],
          config: { lisp: { listen: ['0.0.0.0:4342'] }, graceSeconds: 60 },
          service: {
            type: 'LoadBalancer',
            reflector: false,
            annotations: { a: 'b' },
            extraPorts: [{ name: 'lisp', port: 4342, protocol: 'UDP' }],
          },
          volume: { storageClass: 'fast' },
          networkPolicy: { metricsFrom: [{ podSelector: {} }], egress: [{ to: [{ podSelector: {} }] }] },
          affinity: { nodeAffinity: {} },
        },
      },
    ],
  ] as const) {
    it(`makes what the API takes, of ${what}`, () => {
      const objects = parseYaml(renderChart(values)) as KubernetesObject[];
      assert.ok(objects.length >= 2, `${objects.length}`);
      assert.deepEqual(objects.flatMap(problemsOf), []);
      assert.ok(objects.every(({ metadata }) => metadata.namespace === 'stayput'));
      for (const object of objects) checkConfiguration(object);
    });
  }

  it('has the ports of the reflector everywhere, or nowhere', () => {
    const ofMapServer = (reflector: boolean) => {
      const values = { mapserver: { service: { reflector } } };
      const objects = (parseYaml(renderChart(values)) as MapServerObject[]).filter(({ metadata }) =>
        metadata.name.endsWith('-mapserver'),
      );
      const find = (kind: string) => {
        const found = objects.find((object) => object.kind === kind);
        assert.ok(found !== undefined, kind);
        return found;
      };
      const config = JSON.parse(find('ConfigMap').data?.['mapserver.json'] ?? '') as { reflectorListen?: unknown };
      return {
        listen: config.reflectorListen,
        service: find('Service').spec?.ports?.map(({ port }) => port),
        container: find('Deployment')
          .spec?.template?.spec.containers.flatMap(({ ports }) => ports ?? [])
          .flatMap(({ containerPort, protocol }) => (protocol === 'UDP' ? [containerPort] : [])),
        letIn: find('NetworkPolicy').spec?.ingress?.[0]?.ports.map(({ port, protocol }) => `${port}/${protocol}`),
      };
    };
    assert.deepEqual(ofMapServer(true), {
      listen: undefined,
      service: [4342, 4343, 4344],
      container: [4343, 4344],
      letIn: ['4342/TCP', '4343/UDP', '4344/UDP'],
    });
    assert.deepEqual(ofMapServer(false), { listen: [], service: [4342], container: [], letIn: ['4342/TCP'] });
  });

  it('refuses values that it does not know', () => {
    assert.throws(() => renderChart({ agent: { tokenSecrte: 'x' } }), /tokenSecrte/);
    assert.throws(() => renderChart({ mapserver: { overlay: ['everything'] } }), /overlay/);
  });

  it('refuses a configuration in which nobody would hear the probes', () => {
    assert.throws(() => renderChart({ agent: { config: { metricsListen: null } } }), /metricsListen/);
    assert.throws(() => renderChart({ agent: { config: { metricsListen: '127.0.0.1:9999' } } }), /metricsListen/);
    assert.throws(() => renderChart({ mapserver: { config: { metricsListen: '127.0.0.1:9342' } } }), /metricsListen/);
  });

  it('says at the end how to make a token that allows the names of the nodes, if they have any', (t) => {
    const copy = temporaryFolder(t);
    cpSync(CHART, copy, { recursive: true });
    // Without a cluster Helm shows no notes.
    writeFileSync(join(copy, 'templates/out.yaml'), 'notes: {{ include "stayput/templates/NOTES.txt" . | toJson }}\n');
    const notes = (...values: readonly string[]): string =>
      helm('template', copy, '--show-only', 'templates/out.yaml', '--kube-version', KUBERNETES_VERSION, ...values);
    assert.match(notes(), /token create --pool 10\.77\.0\.0\/16 --name '\*\.node' --uses 100/);
    assert.match(notes('--set', 'agent.nameSuffix='), /token create --pool 10\.77\.0\.0\/16 --uses 100/);
  });

  it('lists all of its values in its README', () => {
    const [values] = parseYaml(readFileSync(join(CHART, 'values.yaml'), 'utf8')) as [Record<string, unknown>];
    const rows = [...readFileSync(join(CHART, 'README.md'), 'utf8').matchAll(/^\| `([\w.]+)` \| `(.*?)` \|/gm)];
    assert.deepEqual(rows.map(([, key, value]) => `${key} = ${value}`).sort(), leaves(values).sort());
  });
});

describe('the plain manifests', { skip }, () => {
  const objects = (): Workload[] =>
    ['namespace.yaml', 'mapserver.yaml', 'agent.yaml'].flatMap(
      (name) => parseYaml(readFileSync(join(MANIFESTS, name), 'utf8')) as Workload[],
    );

  it('are all in the kustomization, and what the API takes', () => {
    const [{ resources }] = parseYaml(readFileSync(join(MANIFESTS, 'kustomization.yaml'), 'utf8')) as [
      { resources: readonly string[] },
    ];
    assert.deepEqual(resources, ['namespace.yaml', 'mapserver.yaml', 'agent.yaml']);
    assert.deepEqual(objects().flatMap(problemsOf), []);
  });

  it('give no container more than it needs', () => {
    const rights = objects().flatMap(({ spec: { template } = {} }) =>
      [...(template?.spec.initContainers ?? []), ...(template?.spec.containers ?? [])].map((container) => {
        const { capabilities, ...rest } = container.securityContext;
        const user = rest.runAsUser ?? template?.spec.securityContext.runAsUser;
        assert.deepEqual([rest.allowPrivilegeEscalation, rest.readOnlyRootFilesystem], [false, true], container.name);
        assert.deepEqual(capabilities.drop, ['ALL'], container.name);
        return `${container.name}: user ${user}, ${capabilities.add?.join(' ') ?? 'no capability'}`;
      }),
    );
    assert.deepEqual(rights, [
      'init: user 64342, no capability',
      'mapserver: user 64342, no capability',
      'prepare: user 0, CHOWN',
      'join: user 64341, no capability',
      'agent: user 64341, no capability',
      'dataplane: user 0, NET_ADMIN NET_RAW',
    ]);
  });
});

interface MapServerObject extends KubernetesObject {
  readonly data?: Readonly<Record<string, string>>;
  readonly spec?: {
    readonly ports?: readonly { readonly port: number }[];
    readonly ingress?: readonly { readonly ports: readonly { readonly port: number; readonly protocol: string }[] }[];
    readonly template?: {
      readonly spec: {
        readonly containers: readonly {
          readonly ports?: readonly { readonly containerPort: number; readonly protocol?: string }[];
        }[];
      };
    };
  };
}

interface Container {
  readonly name: string;
  readonly securityContext: {
    readonly runAsUser?: number;
    readonly allowPrivilegeEscalation?: boolean;
    readonly readOnlyRootFilesystem?: boolean;
    readonly capabilities: { readonly drop: readonly string[]; readonly add?: readonly string[] };
  };
}

interface Workload extends KubernetesObject {
  readonly spec?: {
    readonly template?: {
      readonly spec: {
        readonly securityContext: { readonly runAsUser?: number };
        readonly initContainers?: readonly Container[];
        readonly containers: readonly Container[];
      };
    };
  };
}

/** The daemons take the configuration in it. */
function checkConfiguration(object: KubernetesObject & { readonly data?: Readonly<Record<string, string>> }): void {
  if (object.kind !== 'ConfigMap') return;
  for (const [name, text] of Object.entries(object.data ?? {})) {
    const schema = { 'agent.json': AGENT_CONFIG, 'mapserver.json': MAP_SERVER_CONFIG }[name];
    assert.ok(schema !== undefined, name);
    schema.parse(JSON.parse(text));
  }
}

/** `key.key = default as JSON`; what is empty is a leaf. */
function leaves(value: unknown, path = ''): string[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || Object.keys(value).length === 0)
    return [`${path} = ${JSON.stringify(value)}`];
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, path === '' ? key : `${path}.${key}`));
}
