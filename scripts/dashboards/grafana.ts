/** A board as Grafana reads it: the part of its classic dashboard JSON (schema version 39) that is used here. */
import { type Board, COLUMNS, type Figure, layout, type Placed, type Query } from './board.ts';

export interface Dashboard {
  readonly uid: string;
  readonly title: string;
  readonly description: string;
  readonly tags: readonly string[];
  readonly schemaVersion: 39;
  readonly editable: boolean;
  /** Of all panels at once: the time under the pointer. */
  readonly graphTooltip: 1;
  readonly refresh: string;
  readonly time: { readonly from: string; readonly to: string };
  readonly timezone: 'browser';
  readonly templating: { readonly list: readonly Variable[] };
  readonly annotations: { readonly list: readonly [] };
  readonly links: readonly Readonly<Record<string, unknown>>[];
  readonly panels: readonly Panel[];
}

export interface Panel extends PanelContent {
  readonly id: number;
}

interface PanelContent {
  readonly type: string;
  readonly title: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly [more: string]: unknown;
}

interface Variable {
  readonly name: string;
  readonly label: string;
  readonly type: 'datasource' | 'query';
  readonly refresh: 1 | 2;
  readonly [more: string]: unknown;
}

interface Threshold {
  /** Null: from the smallest value on. */
  readonly value: number | null;
  readonly color: string;
}

export function grafanaDashboard(board: Board): Dashboard {
  const { titles, figures } = layout(board);
  const rows: { y: number; panel: PanelContent }[] = titles.map(({ title, y }) => ({
    y,
    panel: { type: 'row', title, gridPos: { x: 0, y, w: COLUMNS, h: 1 } },
  }));
  const panels = figures.map((placed) => ({ y: placed.y, panel: panelOf(placed) }));
  const ordered = [...rows, ...panels].sort((a, b) => a.y - b.y).map(({ panel }, i) => ({ id: i + 1, ...panel }));
  return {
    uid: board.uid,
    title: board.title,
    description: board.description,
    tags: ['stayput'],
    schemaVersion: 39,
    editable: true,
    graphTooltip: 1,
    refresh: '30s',
    time: { from: 'now-1h', to: 'now' },
    timezone: 'browser',
    templating: { list: VARIABLES },
    annotations: { list: [] },
    links: [
      {
        title: 'Stayput',
        type: 'dashboards',
        tags: ['stayput'],
        asDropdown: false,
        includeVars: true,
        keepTime: true,
        icon: 'external link',
        targetBlank: false,
        tooltip: '',
        url: '',
      },
    ],
    panels: ordered,
  };
}

function panelOf({ figure, x, y, height }: Placed): PanelContent {
  const { title, about, kind, unit, queries, width, nothing } = figure;
  return {
    type: TYPES[kind],
    title,
    description: about,
    datasource: DATASOURCE,
    gridPos: { x, y, w: width, h: height },
    fieldConfig: {
      defaults: {
        unit,
        ...(nothing === undefined ? {} : { noValue: nothing }),
        ...(unit === 's' || kind === 'number' ? {} : { min: 0 }),
        color: { mode: kind === 'number' ? 'thresholds' : 'palette-classic' },
        thresholds: { mode: 'absolute', steps: stepsOf(figure) },
        ...(kind === 'lines' ? { custom: drawingOf(figure) } : {}),
      },
      overrides: [],
    },
    options: OPTIONS[kind],
    targets: queries.map((query, i) => target(query, kind, i)),
  };
}

function target({ expr, legend }: Query, kind: Figure['kind'], index: number): Record<string, unknown> {
  const refId = String.fromCharCode(65 + index);
  const instant = kind !== 'lines';
  const format = kind === 'table' ? 'table' : 'time_series';
  return { refId, datasource: DATASOURCE, expr, legendFormat: legend, instant, range: !instant, format };
}

function stepsOf({ limits = {} }: Figure): Threshold[] {
  const steps: Threshold[] = [{ value: null, color: 'green' }];
  if (limits.warning !== undefined) steps.push({ value: limits.warning, color: 'orange' });
  if (limits.critical !== undefined) steps.push({ value: limits.critical, color: 'red' });
  return steps;
}

function drawingOf({ limits }: Figure): Record<string, unknown> {
  return {
    lineWidth: 1,
    fillOpacity: 10,
    showPoints: 'never',
    thresholdsStyle: { mode: limits === undefined ? 'off' : 'line' },
  };
}

const DATASOURCE = { type: 'prometheus', uid: '$datasource' };

const TYPES: Readonly<Record<Figure['kind'], string>> = { lines: 'timeseries', number: 'stat', table: 'table' };

const OPTIONS: Readonly<Record<Figure['kind'], Record<string, unknown>>> = {
  lines: {
    legend: { displayMode: 'list', placement: 'bottom', showLegend: true, calcs: [] },
    tooltip: { mode: 'multi', sort: 'desc' },
  },
  number: {
    reduceOptions: { calcs: ['lastNotNull'], fields: '', values: false },
    colorMode: 'value',
    graphMode: 'none',
    textMode: 'auto',
  },
  table: { showHeader: true, cellHeight: 'sm' },
};

const VARIABLES: readonly Variable[] = [
  { name: 'datasource', label: 'Data source', type: 'datasource', query: 'prometheus', refresh: 1 },
  {
    name: 'instance',
    label: 'Agent',
    type: 'query',
    datasource: DATASOURCE,
    query: { query: 'label_values(stayput_agent_build_info, instance)', refId: 'instance' },
    refresh: 2,
    sort: 1,
    multi: true,
    includeAll: true,
    allValue: '.*',
    current: { text: 'All', value: '$__all' },
  },
];
