/**
 * What a kubelet does with the template of a pod, by podman on a host of a lab: volumes with the owners and modes that
 * Kubernetes gives them, init containers one after the other, then containers with the user, capabilities, folders and
 * arguments that the manifest says. There are no cgroups, no restarts and no network but the host's.
 */
import { chmodSync, chownSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerEngine } from './container-engine.ts';
import type { Host } from './lab.ts';
import { LabError } from './lab-error.ts';
import { waitFor } from './wait.ts';

export interface PodSpec {
  readonly securityContext: { readonly runAsUser?: number; readonly runAsGroup?: number; readonly fsGroup: number };
  readonly initContainers: readonly PodContainer[];
  readonly containers: readonly PodContainer[];
  readonly volumes: readonly PodVolume[];
}

export interface PodContainer {
  readonly name: string;
  readonly image: string;
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  readonly env?: readonly { readonly name: string; readonly valueFrom: { fieldRef: { fieldPath: string } } }[];
  readonly ports?: readonly { readonly name: string; readonly containerPort: number }[];
  readonly livenessProbe?: HttpProbe;
  readonly readinessProbe?: HttpProbe;
  readonly securityContext: {
    readonly runAsUser?: number;
    readonly allowPrivilegeEscalation: boolean;
    readonly readOnlyRootFilesystem: boolean;
    readonly capabilities: { readonly drop: readonly string[]; readonly add?: readonly string[] };
  };
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string; readonly readOnly?: boolean }[];
}

interface HttpProbe {
  readonly httpGet: { readonly path: string; readonly port: string };
}

interface PodVolume {
  readonly name: string;
  readonly emptyDir?: object;
  readonly persistentVolumeClaim?: object;
  readonly configMap?: { readonly name: string };
  readonly secret?: { readonly secretName: string; readonly defaultMode: number };
  readonly hostPath?: { readonly path: string; readonly type: string };
}

/** ConfigMaps and Secrets: the files in each. */
export type PodFiles = Readonly<Record<string, Readonly<Record<string, string>>>>;

export class Pod {
  private readonly engine: ContainerEngine;
  private readonly host: Host;
  private readonly spec: PodSpec;

  constructor(engine: ContainerEngine, host: Host, spec: PodSpec) {
    this.engine = engine;
    this.host = host;
    this.spec = spec;
  }

  /** Resolves when the probes of all containers are content. */
  async start(files: PodFiles): Promise<void> {
    const folders = new Map(this.spec.volumes.map((volume) => [volume.name, this.volume(volume, files)]));
    for (const container of this.spec.initContainers) await this.run(container, folders, ['--rm']);
    for (const container of this.spec.containers) await this.run(container, folders, ['--detach']);
    for (const container of this.spec.containers)
      for (const probe of [container.livenessProbe, container.readinessProbe])
        if (probe !== undefined) await this.passes(container, probe);
  }

  /** What a program in a running container prints. */
  async exec(container: string, ...command: readonly string[]): Promise<string> {
    return (await this.engine.podman(this.host, ['exec', this.nameOf(container), ...command])).stdout.trim();
  }

  /** Ends the containers as a deleted pod's. Returns their exit codes. */
  async stop(): Promise<number[]> {
    const codes: number[] = [];
    for (const { name } of this.spec.containers) {
      await this.engine.podman(this.host, ['stop', this.nameOf(name)]);
      const { stdout } = await this.engine.podman(this.host, ['wait', this.nameOf(name)]);
      await this.engine.podman(this.host, ['rm', this.nameOf(name)]);
      codes.push(Number(stdout));
    }
    return codes;
  }

  private async run(
    container: PodContainer,
    folders: ReadonlyMap<string, string>,
    options: readonly string[],
  ): Promise<void> {
    const { securityContext: pod } = this.spec;
    const { securityContext: own } = container;
    const variables = Object.fromEntries((container.env ?? []).map(({ name }) => [name, this.host.name]));
    const expanded = (container.args ?? []).map((text) =>
      text.replace(/\$\((\w+)\)/g, (all, name: string) => variables[name] ?? all),
    );
    await this.engine.podman(this.host, [
      ...['run', ...options, '--name', this.nameOf(container.name), '--no-healthcheck', '--network', 'host'],
      ...['--user', `${own.runAsUser ?? pod.runAsUser}:${pod.runAsGroup}`, '--group-add', String(pod.fsGroup)],
      // Nothing but the volumes can be written to.
      ...(own.readOnlyRootFilesystem ? ['--read-only', '--read-only-tmpfs=false'] : []),
      ...(own.allowPrivilegeEscalation ? [] : ['--security-opt', 'no-new-privileges']),
      ...own.capabilities.drop.flatMap((name) => ['--cap-drop', name]),
      ...(own.capabilities.add ?? []).flatMap((name) => ['--cap-add', name]),
      ...Object.entries(variables).flatMap(([name, value]) => ['--env', `${name}=${value}`]),
      ...container.volumeMounts.flatMap(({ name, mountPath, readOnly }) => [
        '--volume',
        `${folders.get(name)}:${mountPath}${readOnly === true ? ':ro' : ''}`,
      ]),
      ...(container.command === undefined ? [] : ['--entrypoint', JSON.stringify(container.command)]),
      ...[container.image, ...expanded],
    ]);
  }

  /** Where a volume is on this machine; made when it is not there yet. */
  private volume(volume: PodVolume, files: PodFiles): string {
    const { name, hostPath, configMap, secret } = volume;
    const { fsGroup } = this.spec.securityContext;
    if (hostPath !== undefined && hostPath.type !== 'DirectoryOrCreate') return hostPath.path;
    const folder = join(this.host.dir, hostPath === undefined ? 'volumes' : 'node', hostPath?.path ?? name);
    if (existsSync(folder)) return folder;
    mkdirSync(folder, { recursive: true, mode: 0o755 });
    if (configMap !== undefined || secret !== undefined) {
      for (const [file, text] of Object.entries(files[configMap?.name ?? secret?.secretName ?? ''] ?? {})) {
        writeFileSync(join(folder, file), text);
        chmodSync(join(folder, file), secret?.defaultMode ?? 0o644);
        chownSync(join(folder, file), 0, fsGroup);
      }
    } else if (hostPath === undefined) {
      chownSync(folder, 0, fsGroup);
      chmodSync(folder, volume.emptyDir === undefined ? 0o2775 : 0o2777);
    }
    return folder;
  }

  private async passes({ name, ports }: PodContainer, { httpGet }: HttpProbe): Promise<void> {
    const port = ports?.find((each) => each.name === httpGet.port)?.containerPort;
    if (port === undefined) throw new LabError(`${name} has no port ${httpGet.port}`);
    const get = ['curl', '-sf', `http://127.0.0.1:${port}${httpGet.path}`];
    const content = async (): Promise<boolean> => (await this.host.exec(get, { anyExit: true })).code === 0;
    await waitFor(`${httpGet.path} of ${name}`, content);
  }

  private nameOf(container: string): string {
    return `${this.host.name}-${container}`;
  }
}
