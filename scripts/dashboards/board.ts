/**
 * What a dashboard shows, apart from how Grafana writes it down (`grafana.ts`): sections of figures, each with the
 * expressions that it is drawn from. `$instance` stands for the chosen agents, `$__rate_interval` and `$__range` are
 * Grafana's. Figures go from left to right in rows of 24 columns.
 */

export interface Board {
  /** For ever: links and bookmarks hold it. */
  readonly uid: string;
  readonly title: string;
  readonly description: string;
  readonly sections: readonly Section[];
}

export interface Section {
  readonly title: string;
  readonly figures: readonly Figure[];
}

export interface Figure {
  readonly title: string;
  /** What it means and when to worry. */
  readonly about: string;
  /** `number`: the last value. `table`: a line for each series, its labels and its last value. */
  readonly kind: 'lines' | 'number' | 'table';
  readonly unit: Unit;
  readonly queries: readonly Query[];
  /** From which value on something is wrong: a colour, and a line in the picture. */
  readonly limits?: { readonly warning?: number; readonly critical?: number };
  /** What stands there without data, where that is the good case. */
  readonly nothing?: string;
  /** Of 24 columns. */
  readonly width: number;
}

export interface Query {
  readonly expr: string;
  /** Labels in `{{}}`. */
  readonly legend: string;
}

/** Grafana's names. */
export type Unit = 'short' | 'percentunit' | 's' | 'bytes' | 'bps' | 'pps' | 'ops' | 'dtdurations';

export const NUMBER_HEIGHT = 4;
export const CHART_HEIGHT = 8;

export interface Placed {
  readonly figure: Figure;
  readonly x: number;
  readonly y: number;
  readonly height: number;
}

export interface Layout {
  readonly titles: readonly { readonly title: string; readonly y: number }[];
  readonly figures: readonly Placed[];
  readonly height: number;
}

/** In Grafana's grid: columns of 24, rows of 30 pixels. */
export function layout({ sections }: Board): Layout {
  const titles: { title: string; y: number }[] = [];
  const figures: Placed[] = [];
  let y = 0;
  for (const section of sections) {
    titles.push({ title: section.title, y });
    y += 1;
    let x = 0;
    let line = 0;
    for (const figure of section.figures) {
      const height = figure.kind === 'number' ? NUMBER_HEIGHT : CHART_HEIGHT;
      if (x + figure.width > COLUMNS) {
        x = 0;
        y += line;
        line = 0;
      }
      figures.push({ figure, x, y, height });
      x += figure.width;
      line = Math.max(line, height);
    }
    y += line;
  }
  return { titles, figures, height: y };
}

export const COLUMNS = 24;
