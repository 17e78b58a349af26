/** Tells of limits that were reached: each time in the metrics, once a minute for each source in the log. */
import type { Millis } from '../../proto/time.ts';
import type { Log } from '../../runtime/log.ts';
import type { LimitName, MapServerMetrics } from './metrics.ts';

interface Report {
  readonly limit: LimitName;
  readonly source: string;
  /** Since the last line. */
  count: number;
}

export class LimitReports {
  private readonly metrics: Pick<MapServerMetrics, 'limitHit'>;
  private readonly log: Pick<Log, 'warn'>;
  private readonly reports = new Map<string, Report>();
  private readonly timer: NodeJS.Timeout;

  constructor(metrics: Pick<MapServerMetrics, 'limitHit'>, log: Pick<Log, 'warn'>) {
    this.metrics = metrics;
    this.log = log;
    this.timer = setInterval(() => this.summarise(), REPORT_INTERVAL);
    this.timer.unref();
  }

  /** `source`: the address (IPv6: /64) or the xTR-ID. Logged at once the first time, later with others in one line. */
  hit(limit: LimitName, source: string): void {
    this.metrics.limitHit(limit);
    const key = `${limit} ${source}`;
    const report = this.reports.get(key);
    if (report !== undefined) {
      report.count++;
      return;
    }
    // Beyond, the metrics still count.
    if (this.reports.size >= MAX_REPORTS) return;
    this.reports.set(key, { limit, source, count: 0 });
    this.write({ limit, source, count: 1 });
  }

  /** A line for each source that went on; one that did not is forgotten. */
  summarise(): void {
    for (const [key, report] of this.reports) {
      if (report.count === 0) this.reports.delete(key);
      else this.write(report);
      report.count = 0;
    }
  }

  close(): void {
    clearInterval(this.timer);
    this.summarise();
  }

  private write({ limit, source, count }: Report): void {
    this.log.warn({ what: limit, source, count }, 'limit reached');
  }
}

const REPORT_INTERVAL: Millis = 60_000;
const MAX_REPORTS = 1_000;
