/** The names of the zone over the admin API: what is at each, and what is set there. */
import { z } from 'zod';
import { NO_RECORDS, parseTarget, type RecordSets } from '../../proto/dns/record-sets.ts';
import { APEX } from '../../proto/eid.ts';
import { ApiError, parseBody, type Route } from '../../runtime/http-api.ts';
import type { ZoneEntry } from '../core/names.ts';
import type { Driver } from './driver.ts';
import { apiError, namePatternText } from './enrolment.ts';
import { RECORD_SETS } from './record-codec.ts';

export function nameRoutes(driver: Driver, zone: () => string): Route[] {
  const change = async (name: string, news: Partial<RecordSets> | null): Promise<unknown> => {
    const record = driver.core.state.nameRecord(name);
    const records = news === null ? null : { ...(record?.records ?? NO_RECORDS), ...news };
    const changes = [{ name, records, ifVersion: record?.version ?? 0 }];
    const result = await driver.operate({ kind: 'change-names', changes });
    if (!result.ok) throw apiError(result.error);
    const entry = driver.core.names.entry(name);
    return {
      ...(entry === undefined ? { name } : entryView(entry)),
      version: driver.core.state.nameRecord(name)?.version ?? 0,
    };
  };
  return [
    {
      method: 'GET',
      path: '/v1/zone',
      handle: () => ({
        zone: zone(),
        names: [...driver.core.names.entries()].map(entryView).sort((a, b) => (a.name < b.name ? -1 : 1)),
      }),
    },
    {
      method: 'POST',
      path: '/v1/zone/names',
      handle: ({ body }) => {
        const { name, ...news } = parseBody(NAME_CHANGE, body);
        return change(name, canonical(news, zone()));
      },
    },
    {
      method: 'DELETE',
      path: '/v1/zone/names/:name',
      handle: ({ params, body }) => {
        const { name, type } = parseBody(NAME_REMOVAL, { ...(body as object | undefined), name: params.name });
        return change(name, type === null ? null : NOTHING_OF[type]);
      },
    },
  ];
}

function canonical({ cname, srv, ns, ...rest }: Omit<NameNews, 'name'>, zone: string): Partial<RecordSets> {
  try {
    return {
      ...(Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined)) as Partial<RecordSets>),
      ...(cname == null ? {} : { cname: parseTarget(cname, zone) }),
      ...(srv === undefined ? {} : { srv: srv.map((each) => ({ ...each, target: parseTarget(each.target, zone) })) }),
      ...(ns === undefined ? {} : { ns: ns.map((each) => ({ ...each, host: parseTarget(each.host, zone) })) }),
    };
  } catch (error) {
    throw new ApiError(400, 'STAYPUT_USAGE', (error as Error).message, { cause: error });
  }
}

type NameView = Pick<ZoneEntry, 'name'> & {
  readonly members: readonly Pick<ZoneEntry['members'][number], 'address' | 'weight' | 'live'>[];
} & Omit<RecordSets, 'addresses' | 'weights'>;

function entryView({ name, members, records }: ZoneEntry): NameView {
  const { ttl, cname, srv, txt, ns } = records;
  return {
    name,
    members: members.map(({ address, weight, live }) => ({ address, weight, live })),
    ttl,
    cname,
    srv,
    txt,
    ns,
  };
}

const { ttl, cname, srv, txt, ns, addresses, weights } = RECORD_SETS.shape;
const setNameText = z.union([z.literal(APEX), namePatternText]);
/** What is not given stays as it is. */
export const NAME_CHANGE = z.strictObject({
  name: setNameText,
  ttl: ttl.unwrap().optional(),
  cname: cname.unwrap().optional(),
  srv: srv.unwrap().optional(),
  txt: txt.unwrap().optional(),
  ns: ns.unwrap().optional(),
  addresses: addresses.unwrap().optional(),
  weights: weights.unwrap().optional(),
});
type NameNews = z.output<typeof NAME_CHANGE>;
/** `type` null: everything that is set at the name. */
export const NAME_REMOVAL = z.strictObject({
  name: setNameText,
  type: z.enum(['cname', 'srv', 'txt', 'ns', 'address', 'weight']).nullable().default(null),
});
const NOTHING_OF = {
  cname: { cname: null },
  srv: { srv: [] },
  txt: { txt: [] },
  ns: { ns: [] },
  address: { addresses: [] },
  weight: { weights: [] },
} as const;
