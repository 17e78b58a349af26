/** The kit's checks of outer headers, which take raw sockets, against an xTR with one fault each. Budget: 60 s. */
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { AddressRange } from '../../conform/address-range.ts';
import { Exclusive } from '../../conform/exclusive.ts';
import { DEFAULT_OUTSIDE } from '../../conform/map-server/subject.ts';
import { Pacer } from '../../conform/pacer.ts';
import { runConformance } from '../../conform/run.ts';
import { xtrRole } from '../../conform/xtr/subject.ts';
import { ensureDataplaneBuilt } from '../../runtime/crate-build.ts';
import { type Fault, OTHER_EID, XtrDouble } from '../conform/xtr-double.ts';
import { requireLab } from './require.ts';

requireLab();

const EID = '198.18.0.9';

/** Checks that have to fail, and no others. */
const FAULTS: Readonly<Partial<Record<Fault, readonly string[]>>> = {
  'keeps the inner TTL': ['001'],
  'takes the outer TTL, whatever it is': ['002'],
  'loses congestion': ['003', '004', '005'],
  'takes the outer ECN, whatever it is': ['006', '007', '008'],
  'delivers congestion that cannot be said': ['009'],
  'drops checksums of zero': ['010'],
  'sends with its own TTL': ['011'],
  'sends without ECN': ['012'],
  'sends checksums': ['013'],
};

describe('the checks of outer headers', () => {
  let program: string;
  let runs = 0;

  before(async () => {
    program = await ensureDataplaneBuilt(() => {});
  });

  const examine = async (fault?: Fault): Promise<string[]> => {
    runs++;
    const [address, local] = [`127.77.51.${runs}`, `127.77.52.${runs}`];
    const double = new XtrDouble({ address, eid: EID, peer: local }, fault);
    await double.start();
    await double.useRaw(program);
    const target = { address, port: 4342, family: 4 } as const;
    const pacer = new Pacer(5_000);
    const role = xtrRole({
      target,
      local,
      pacer,
      dataPort: new Exclusive(),
      lispPort: new Exclusive(),
      answerMs: 400,
      graceMs: 40,
      eid: EID,
      ownEid: OTHER_EID,
      instance: 0,
      outside: new AddressRange([], DEFAULT_OUTSIDE),
      isMapServer: false,
      rawProgram: program,
    });
    try {
      const { checks } = await runConformance(role, { target, pacer, parallel: 4, only: ['XTR-OUT'] });
      return checks
        .filter(({ outcome }) => outcome !== 'passed')
        .map(({ id, outcome, seen }) => `${id} ${outcome} ${seen}`);
    } finally {
      double.close();
    }
  };

  it('an xTR that does everything right passes', async () => {
    assert.deepEqual(await examine(), []);
  });

  for (const [fault, fails] of Object.entries(FAULTS)) {
    it(`an xTR that ${fault} fails those of that and no others`, async () => {
      const found = await examine(fault as Fault);
      assert.deepEqual(
        found.map((line) => line.split(' ').slice(0, 2).join(' ')),
        fails.map((number) => `XTR-OUT-${number} failed`),
        found.join('\n'),
      );
    });
  }
});
