/** What the figures of a board show of a time that a Prometheus has recorded. */
import type { Prometheus, SeriesData } from '../../test/lab/prometheus.ts';
import type { Board, Figure } from './board.ts';

export interface Span {
  /** Seconds since 1970. */
  readonly from: number;
  readonly to: number;
}

export interface FigureData {
  readonly figure: Figure;
  /** For each query its series; points that are no numbers are left out. */
  readonly queries: readonly (readonly SeriesData[])[];
}

/** @throws LabError when an expression is wrong */
export async function readBoard(prometheus: Prometheus, board: Board, span: Span): Promise<readonly FigureData[]> {
  const figures = board.sections.flatMap((section) => section.figures);
  const data: FigureData[] = [];
  for (const figure of figures) {
    const queries = await Promise.all(
      figure.queries.map(({ expr }) => prometheus.range(substituted(expr, span), span.from, span.to, STEP)),
    );
    data.push({
      figure,
      queries: queries.map((series) => series.map(finite).filter(({ points }) => points.length > 0)),
    });
  }
  return data;
}

/** As Grafana does, for all agents. */
export function substituted(expression: string, { from, to }: Span): string {
  return expression
    .replaceAll('$instance', '.*')
    .replaceAll('$__rate_interval', RATE_INTERVAL)
    .replaceAll('$__range', `${Math.ceil(to - from)}s`);
}

function finite({ labels, points }: SeriesData): SeriesData {
  return { labels, points: points.filter(([, value]) => Number.isFinite(value)) };
}

const STEP = 1;
/** Of a scrape each second, on a machine that is busy. */
const RATE_INTERVAL = '8s';
