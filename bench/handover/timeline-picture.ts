/**
 * One event as a picture: a lane for each probe, one for the messages of each host, and the lines that the daemons
 * logged. A packet is a line from when it was sent (top of its lane) to when it arrived (bottom); what never arrived is
 * a red tick. SVG without scripts, fonts or links.
 */
import { escaped, px, textAt } from '../svg.ts';
import { EVENTS } from './events.ts';
import { PROBES } from './samples.ts';
import { type LogNote, MESSAGE_KINDS, type Message, type MessageKind, type Timeline } from './timeline.ts';

const LEFT = 222;
const PLOT = 1040;
const MARGIN = 28;
const WIDTH = LEFT + PLOT + MARGIN;
const TOP = 112;
const GAP = 16;
const NOTE_HEIGHT = 17;
const MOST_NOTES = 24;
/** Shown before the event and after the last silence; of a long silence only this much. */
const BEFORE_MS = 25;
const AFTER_MS = 60;
const LONGEST_MS = 3_000;
const SHORTEST_MS = 120;

/** An SVG document of one event. */
export function drawTimeline(timeline: Timeline): string {
  const scale = new Scale(timeline);
  const lanes = [
    ...timeline.probes.map((probe) => probeLane(probe, scale)),
    ...hostsOf(timeline).map((host) => messageLane(host, timeline.messages, scale)),
    noteLane(timeline.notes, scale),
  ];
  let y = TOP;
  const drawn = lanes.map(({ height, content }) => {
    const lane = `<g transform="translate(0 ${y})">\n${content}</g>\n`;
    y += height + GAP;
    return lane;
  });
  const bottom = y;
  const height = bottom + 34;
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" ` +
    `font-family="DejaVu Sans, Verdana, sans-serif" font-size="12" fill="${INK}">\n` +
    `<title>${escaped(timeline.event)}</title>\n<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>\n` +
    heading(timeline) +
    backdrop(timeline, scale, bottom) +
    drawn.join('') +
    legend(bottom + 8) +
    '</svg>\n'
  );
}

interface Lane {
  readonly height: number;
  readonly content: string;
}

/** Milliseconds since the event → pixels. */
class Scale {
  readonly fromMs = -BEFORE_MS;
  readonly toMs: number;

  constructor({ probes, countedMs }: Timeline) {
    const ends = probes.map(({ outcome }) => Math.max(outcome.outage[1], countedMs + outcome.gapMs));
    this.toMs = Math.min(Math.max(...ends, SHORTEST_MS - AFTER_MS) + AFTER_MS, LONGEST_MS);
  }

  x(atMs: number): number {
    return px(LEFT + ((atMs - this.fromMs) / (this.toMs - this.fromMs)) * PLOT);
  }

  shows(atMs: number): boolean {
    return atMs >= this.fromMs && atMs <= this.toMs;
  }

  /** Round numbers, eight or so of them. */
  ticks(): number[] {
    const rough = (this.toMs - this.fromMs) / 8;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough) ?? rough;
    const ticks: number[] = [];
    for (let at = Math.ceil(this.fromMs / step) * step; at <= this.toMs; at += step) ticks.push(Math.round(at));
    return ticks;
  }
}

function heading({ system, event, rttMs, probes }: Timeline): string {
  const sums = probes.map(({ samples, outcome }) => `${samples.probe} ${outcome.gapMs.toFixed(1)} ms`).join(', ');
  return (
    textAt(MARGIN, 36, `${system}: ${event}`, 'font-size="20" font-weight="bold"') +
    textAt(MARGIN, 58, `${EVENTS[event]}; underlay RTT ${rttMs} ms. Gaps: ${sums}`, `fill="${FAINT}"`)
  );
}

function backdrop({ countedMs }: Timeline, scale: Scale, bottom: number): string {
  const away =
    countedMs <= 0
      ? ''
      : `<rect x="${scale.x(0)}" y="${TOP - 12}" width="${px(scale.x(countedMs) - scale.x(0))}" height="${bottom - TOP + 4}" fill="${AWAY}"/>\n` +
        textAt(
          scale.x(countedMs) + 3,
          TOP - 34,
          `${countedMs.toFixed(1)} ms: from here on the gap counts`,
          `font-size="11"`,
        ) +
        `<path d="M${scale.x(countedMs)} ${TOP - 44}V${bottom - 8}" stroke="${INK}" stroke-dasharray="4 3" stroke-opacity="0.6"/>\n`;
  const ticks = scale.ticks().map((at) => {
    const x = scale.x(at);
    const label = at === 0 ? '0 ms: event' : String(at);
    const attributes = `font-size="11" text-anchor="middle" fill="${FAINT}"`;
    return `${textAt(x, TOP - 18, label, attributes)}<path d="M${x} ${TOP - 12}V${bottom - 8}" stroke="${RULE}"/>\n`;
  });
  return away + ticks.join('');
}

const PROBE_HEIGHT = 74;

function probeLane({ samples, outcome }: Timeline['probes'][number], scale: Scale): Lane {
  const { probe } = samples;
  const lost = probe === 'tcp-bulk' ? [] : [`${outcome.lost} lost, ${outcome.duplicated} twice`];
  const labels = [`gap ${outcome.gapMs.toFixed(1)} ms, silence ${outcome.outageMs.toFixed(1)} ms`, ...lost];
  const content =
    laneLabel(probe, [PROBES[probe].split(',')[0] ?? '', ...labels]) +
    `<path d="M${LEFT} 0H${LEFT + PLOT}M${LEFT} ${PROBE_HEIGHT}H${LEFT + PLOT}" stroke="${RULE}"/>\n` +
    (probe === 'tcp-bulk' ? progress(samples, scale) : packets(samples, scale));
  return { height: PROBE_HEIGHT, content };
}

function packets({ sent, received }: Timeline['probes'][number]['samples'], scale: Scale): string {
  const arrivals = new Map<number, number>();
  for (const { number, atMs } of received) if (!arrivals.has(number)) arrivals.set(number, atMs);
  const delivered: string[] = [];
  const lost: string[] = [];
  for (const { number, atMs } of sent) {
    const arrival = arrivals.get(number);
    if (arrival === undefined) {
      if (scale.shows(atMs)) lost.push(`M${scale.x(atMs)} 0v14`);
    } else if (scale.shows(atMs) && scale.shows(arrival)) {
      delivered.push(`M${scale.x(atMs)} 0L${scale.x(arrival)} ${PROBE_HEIGHT}`);
    }
  }
  return (
    `<path d="${delivered.join('')}" stroke="${DELIVERED}" stroke-opacity="0.6" fill="none"/>\n` +
    (lost.length === 0 ? '' : `<path d="${lost.join('')}" stroke="${LOST}" stroke-width="1.5" fill="none"/>\n`)
  );
}

/** The octets that have arrived, as a curve. */
function progress({ received }: Timeline['probes'][number]['samples'], scale: Scale): string {
  const shown = received.filter(({ atMs }) => scale.shows(atMs));
  const [first, last] = [shown[0], shown.at(-1)];
  if (first === undefined || last === undefined || first.number === last.number) return '';
  const y = (octets: number): number =>
    px(PROBE_HEIGHT - ((octets - first.number) / (last.number - first.number)) * (PROBE_HEIGHT - 4));
  const steps = shown.map(({ number, atMs }) => `H${scale.x(atMs)}V${y(number)}`);
  return `<path d="M${scale.x(first.atMs)} ${PROBE_HEIGHT}${steps.join('')}" stroke="${DELIVERED}" stroke-width="1.5" fill="none"/>\n`;
}

const MESSAGE_HEIGHT = 44;

/** Sent above the line, received below it. */
function messageLane(host: string, messages: readonly Message[], scale: Scale): Lane {
  const own = messages.filter((message) => message.host === host && scale.shows(message.atMs));
  const middle = MESSAGE_HEIGHT / 2;
  const marks = own.map(({ kind, direction, atMs }) => {
    const x = scale.x(atMs);
    const triangle = direction === 'sent' ? `M${x} ${middle - 15}l4 11h-8z` : `M${x} ${middle + 15}l4 -11h-8z`;
    return `<path d="${triangle}" fill="${MESSAGE_COLOURS[kind]}" fill-opacity="0.85"/>\n`;
  });
  const line = `<path d="M${LEFT} ${middle}H${LEFT + PLOT}" stroke="${INK}" stroke-opacity="0.4"/>\n`;
  return {
    height: MESSAGE_HEIGHT,
    content: laneLabel(host, ['messages: ▲ sent, ▼ received']) + line + marks.join(''),
  };
}

function noteLane(notes: readonly LogNote[], scale: Scale): Lane {
  const shown = notes
    .filter(({ atMs }) => scale.shows(atMs))
    .sort((a, b) => a.atMs - b.atMs)
    .slice(0, MOST_NOTES);
  const rows = shown.map(({ who, text, atMs }, i) => {
    const [x, y] = [scale.x(atMs), 14 + i * NOTE_HEIGHT];
    const words = `${atMs.toFixed(0)} ms  ${who}: ${text}`;
    const left = x > LEFT + PLOT * 0.6;
    return (
      `<circle cx="${x}" cy="${y - 4}" r="3.5" fill="${INK}"/>\n` +
      textAt(left ? x - 9 : x + 9, y, words, `font-size="11"${left ? ' text-anchor="end"' : ''}`)
    );
  });
  return {
    height: Math.max(shown.length, 2) * NOTE_HEIGHT,
    content: laneLabel('logs', ['of the daemons']) + rows.join(''),
  };
}

function laneLabel(title: string, lines: readonly string[]): string {
  return (
    textAt(MARGIN, 14, title, 'font-weight="bold"') +
    lines.map((line, i) => textAt(MARGIN, 29 + i * 14, line, `font-size="10" fill="${FAINT}"`)).join('')
  );
}

function legend(y: number): string {
  const items = [
    ...MESSAGE_KINDS.map((kind) => [MESSAGE_COLOURS[kind], `message: ${kind}`]),
    [DELIVERED, 'packet, from sending to arrival'],
    [LOST, 'lost'],
    [AWAY, 'cable or workload away'],
  ];
  let x = MARGIN;
  return items
    .map(([colour = '', label = '']) => {
      const item =
        `<rect x="${x}" y="${y}" width="11" height="11" fill="${colour}"/>\n` +
        textAt(x + 16, y + 10, label, 'font-size="11"');
      x += 44 + label.length * 6.6;
      return item;
    })
    .join('');
}

function hostsOf({ messages }: Timeline): string[] {
  return [...new Set(messages.map(({ host }) => host))];
}

const MESSAGE_COLOURS: Readonly<Record<MessageKind, string>> = {
  handshake: '#7b3fa0',
  probe: '#d9581c',
  report: '#1f8a4c',
  'map server': '#1763b5',
};
const INK = '#1d2733';
const FAINT = '#5d6875';
const RULE = '#e3e7ec';
const DELIVERED = '#5b7fa6';
const LOST = '#c0261c';
const AWAY = '#f6e6d6';
