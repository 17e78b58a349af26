/**
 * How long answers took, by zone: a histogram for Prometheus that costs an answer an addition. prom-client's own checks
 * and looks up its labels with each observation.
 */
interface Observed {
  /** As many as took no longer than each of the bounds and longer than the one before; the last: longer than all. */
  readonly counts: number[];
  sum: number;
}

/** A line of the exposition. */
interface Sample {
  readonly metricName: string;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
}

export class AnswerTimes {
  readonly name: string;
  readonly help: string;
  readonly type = 'histogram';
  readonly aggregator = 'sum';
  readonly labelNames = ['zone'];
  readonly #zones = new Map<string, Observed>();

  constructor(name: string, help: string) {
    this.name = name;
    this.help = help;
  }

  observe(zone: string, seconds: number): void {
    let observed = this.#zones.get(zone);
    if (observed === undefined) {
      observed = { counts: new Array<number>(BOUNDS.length + 1).fill(0), sum: 0 };
      this.#zones.set(zone, observed);
    }
    let bucket = 0;
    while (seconds > (BOUNDS[bucket] ?? Number.POSITIVE_INFINITY)) bucket += 1;
    observed.counts[bucket] = (observed.counts[bucket] ?? 0) + 1;
    observed.sum += seconds;
  }

  /** What prom-client reads of a metric. */
  async get(): Promise<object> {
    const { name, help, type, aggregator } = this;
    return { name, help, type, aggregator, values: [...this.#zones].flatMap((zone) => samples(name, ...zone)) };
  }

  reset(): void {
    this.#zones.clear();
  }
}

function samples(name: string, zone: string, { counts, sum }: Observed): Sample[] {
  let total = 0;
  const buckets = counts.map((count, i): Sample => {
    total += count;
    return { metricName: `${name}_bucket`, labels: { le: BOUNDS[i] ?? '+Inf', zone }, value: total };
  });
  return [
    ...buckets,
    { metricName: `${name}_sum`, labels: { zone }, value: sum },
    { metricName: `${name}_count`, labels: { zone }, value: total },
  ];
}

const BOUNDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
