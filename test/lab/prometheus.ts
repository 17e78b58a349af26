/** The real Prometheus on a host of the lab, configured by the example that operators get. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../runtime/project-root.ts';
import type { Attachment } from './internet.ts';
import type { Host } from './lab.ts';
import { LabError } from './lab-error.ts';
import type { LabProcess } from './lab-process.ts';
import type { MapServer } from './overlay.ts';

/** For the map server's `discoveryTokenFile`. */
export const DISCOVERY_TOKEN = 'the-token-of-the-laboratory-is-no-secret';
/** Between two scrapes of one target. */
export const SCRAPE_SECONDS = 1;

export interface PrometheusOptions {
  readonly mapServer: MapServer;
  /** Where Prometheus finds the map server's metrics. */
  readonly mapServerAddress: string;
  /** Names by xTR-ID: the hosts of a lab all have the name of the machine that it runs on. */
  readonly names?: ReadonlyMap<string, string>;
}

export interface Target {
  readonly job: string;
  readonly xtrId: string | undefined;
  readonly url: string;
  readonly health: string;
  readonly lastError: string;
}

/** Values over time of one series. */
export interface SeriesData {
  readonly labels: Readonly<Record<string, string>>;
  /** Seconds since 1970, and the value. */
  readonly points: readonly (readonly [number, number])[];
}

export class Prometheus {
  private readonly host: Host;
  readonly process: LabProcess;

  private constructor(host: Host, process: LabProcess) {
    this.host = host;
    this.process = process;
  }

  static async start({ host }: Attachment, options: PrometheusOptions): Promise<Prometheus> {
    const { mapServer, mapServerAddress, names = new Map() } = options;
    const ca = await host.exec(['curl', '-sfk', `${mapServer.url}/v1/ca`]);
    writeFileSync(join(host.dir, 'ca.pem'), (JSON.parse(ca.stdout) as { ca: string }).ca);
    writeFileSync(join(host.dir, 'token'), DISCOVERY_TOKEN);
    const folder = join(PROJECT_ROOT, 'deploy/prometheus');
    const relabelled = [...names].map(
      ([xtrId, name]) =>
        `      - { source_labels: [xtr_id], regex: "${xtrId}", target_label: instance, replacement: "${name}" }\n`,
    );
    const config = readFileSync(join(folder, 'stayput.yml'), 'utf8')
      .replace('map.example.org:9342', `${mapServerAddress}:9342`)
      .replace('https://map.example.org:4342', mapServer.url)
      .replace('/etc/prometheus/stayput-token', join(host.dir, 'token'))
      .replace('/etc/prometheus/stayput-ca.pem', join(host.dir, 'ca.pem'))
      .replace('stayput-*.rules.yml', join(folder, 'stayput-*.rules.yml'))
      .replaceAll(/_interval: \d+s/g, `_interval: ${SCRAPE_SECONDS}s`)
      .replace('    relabel_configs:\n', `    relabel_configs:\n${relabelled.join('')}`);
    writeFileSync(join(host.dir, 'prometheus.yml'), config);
    const data = join(host.dir, 'prometheus');
    mkdirSync(data);
    const process = host.spawn('prometheus', [
      'prometheus',
      `--config.file=${join(host.dir, 'prometheus.yml')}`,
      `--storage.tsdb.path=${data}`,
      '--web.listen-address=127.0.0.1:9090',
      '--log.level=warn',
    ]);
    const prometheus = new Prometheus(host, process);
    const isReady = async (): Promise<boolean> =>
      (await host.exec(['curl', '-sf', `http://127.0.0.1:9090/-/ready`], { anyExit: true })).code === 0;
    await process.waitUntil('ready', isReady);
    return prometheus;
  }

  async targets(): Promise<readonly Target[]> {
    const { activeTargets } = (await this.ask('targets?state=active')) as {
      activeTargets: { labels: Record<string, string>; scrapeUrl: string; health: string; lastError: string }[];
    };
    return activeTargets.map(({ labels, scrapeUrl, health, lastError }) => ({
      job: labels.job ?? '',
      xtrId: labels.xtr_id,
      url: scrapeUrl,
      health,
      lastError,
    }));
  }

  /** The sum of what an expression gives now; undefined when it gives nothing. */
  async value(expression: string): Promise<number | undefined> {
    const { result } = (await this.ask('query', { query: expression })) as { result: { value: [number, string] }[] };
    return result.length === 0 ? undefined : result.reduce((sum, { value }) => sum + Number(value[1]), 0);
  }

  /** @throws LabError with what Prometheus says of a wrong expression */
  async range(expression: string, from: number, to: number, step: number): Promise<readonly SeriesData[]> {
    const { result } = (await this.ask('query_range', {
      query: expression,
      start: String(from),
      end: String(to),
      step: String(step),
    })) as { result: { metric: Record<string, string>; values: [number, string][] }[] };
    return result.map(({ metric, values }) => ({
      labels: metric,
      points: values.map(([at, value]) => [at, Number(value)] as const),
    }));
  }

  private async ask(path: string, form: Readonly<Record<string, string>> = {}): Promise<unknown> {
    const fields = Object.entries(form).flatMap(([name, value]) => ['--data-urlencode', `${name}=${value}`]);
    const { stdout } = await this.host.exec(['curl', '-s', '--max-time', '20', ...fields, `${API}/${path}`]);
    const answer = JSON.parse(stdout) as { status: string; data: unknown; error?: string };
    if (answer.status !== 'success') throw new LabError(`Prometheus: ${answer.error} in ${JSON.stringify(form)}`);
    return answer.data;
  }
}

const API = 'http://127.0.0.1:9090/api/v1';
