import type { TestContext } from 'node:test';
import type { Narrator, SceneResult } from '../lab/scenes.ts';

export const MUTE: Narrator = { say: () => {}, watch: () => {} };

export function showFigures(t: TestContext, result: SceneResult): void {
  t.diagnostic(
    `${result.name}: TCP gap ${result.tcpLongestGapMs} ms at underlay RTT ${result.underlayRttMs} ms, cable away ${result.cableAwayMs ?? 0} ms, ` +
      `UDP sent ${result.udpSent} lost ${result.udpLost} duplicated ${result.udpDuplicated}, ` +
      `RSS agent ${result.rssMb.agent} MB, data plane ${result.rssMb.dataplane} MB, map server ${result.rssMb.mapServer} MB`,
  );
}
