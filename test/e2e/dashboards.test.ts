/** Every figure of the dashboards shows something of a recorded run: a roam and a move under load. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Figure } from '../../scripts/dashboards/board.ts';
import { BOARDS } from '../../scripts/dashboards/boards.ts';
import { drawBoard } from '../../scripts/dashboards/picture.ts';
import { readBoard } from '../../scripts/dashboards/recording.ts';
import { type RecordedRun, recordRun } from '../lab/recorded-run.ts';
import { MUTE } from './figures.ts';
import { requireLab } from './require.ts';

requireLab();

describe('dashboards of a roam and a move', () => {
  let run: RecordedRun;

  before(async () => {
    run = await recordRun(['roam', 'move'], MUTE);
  });
  after(() => run?.close());

  for (const board of BOARDS) {
    it(`${board.title}: every expression gives data, and a picture can be drawn of it`, async () => {
      const data = await readBoard(run.prometheus, board, run);
      const empty = data.flatMap(({ figure, queries }) =>
        queries.flatMap((series, i) => (series.length > 0 || mayBeEmpty(figure) ? [] : `${figure.title}, query ${i}`)),
      );
      assert.deepEqual(empty, []);
      const picture = drawBoard(board, data, run);
      assert.match(picture, /^<svg /);
      assert.doesNotMatch(picture, /NaN|Infinity|undefined|no data/);
    });
  }

  it('a roam, a move and what they cost are seen', async () => {
    const { prometheus, from, to } = run;
    const grown = async (metric: string): Promise<number> => {
      const [series] = await prometheus.range(`sum(increase(${metric}[${Math.ceil(to - from)}s]))`, to, to, 1);
      return series?.points[0]?.[1] ?? 0;
    };
    assert.ok((await grown('stayput_agent_handover_seconds_count')) > 0, 'a handover');
    assert.ok((await grown('stayput_mapserver_moves_total')) > 0, 'a move');
    assert.ok((await grown('stayput_dataplane_tun_rx_bytes_total')) > 1e6, 'traffic');
  });

  // Others may: on a machine that is busy, a handover can take long.
  it('no critical alert fires', async () => {
    const firing = 'ALERTS{alertstate="firing",severity="critical"}';
    const alerts = await run.prometheus.range(firing, run.from, run.to, 1);
    assert.deepEqual(
      alerts.map(({ labels }) => labels.alertname),
      [],
    );
  });
});

function mayBeEmpty({ nothing }: Figure): boolean {
  return nothing !== undefined;
}
