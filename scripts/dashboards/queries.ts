/** Shorthands for expressions that many figures are drawn from. */
import type { Figure, Query } from './board.ts';

/** The chosen agents, and more matchers. */
export function of(metric: string, more = ''): string {
  return `${metric}{instance=~"$instance"${more === '' ? '' : `,${more}`}}`;
}

/** Per second, over as many scrapes as Grafana thinks right. */
export function rate(selector: string): string {
  return `rate(${selector}[$__rate_interval])`;
}

/** `sum by (LABELS)` of the rate of the chosen agents' counter. */
export function rateBy(labels: string, metric: string, more = ''): string {
  return `sum by (${labels}) (${rate(of(metric, more))})`;
}

/** Quantiles of a histogram over all chosen agents. */
export function quantiles(buckets: string, by = 'le'): Query[] {
  return [0.5, 0.95, 0.99].map((quantile) => ({
    expr: `histogram_quantile(${quantile}, sum by (${by}) (${rate(buckets)}))`,
    legend: `${quantile * 100} %${by === 'le' ? '' : ` {{${by.replace(', le', '')}}}`}`,
  }));
}

export function lines(figure: Omit<Figure, 'kind' | 'width'> & { readonly width?: number }): Figure {
  return { kind: 'lines', width: 12, ...figure };
}

export function number(figure: Omit<Figure, 'kind' | 'width'> & { readonly width?: number }): Figure {
  return { kind: 'number', width: 4, ...figure };
}

export function table(figure: Omit<Figure, 'kind' | 'width'> & { readonly width?: number }): Figure {
  return { kind: 'table', width: 12, ...figure };
}
