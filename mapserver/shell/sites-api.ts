/** Sites of LISP routers over the admin API. Secrets come in and never go out. */
import { z } from 'zod';
import { parseEidKey } from '../../proto/eid.ts';
import { siteXtrIdOf } from '../../proto/identity.ts';
import { ApiError, parseBody, type Route } from '../../runtime/http-api.ts';
import { parseGroupName } from '../core/grants.ts';
import type { SiteChange, SiteSettings } from '../core/lisp/site-changes.ts';
import type { SiteRecord } from '../core/records.ts';
import type { Driver } from './driver.ts';
import { apiError } from './enrolment.ts';
import { parsedBy, SITE_KEY, SITE_PREFIX } from './record-codec.ts';

export function siteRoutes(driver: Driver, defaultInstance: number): Route[] {
  const change = async (asked: SiteChange): Promise<SiteView> => {
    const result = await driver.operate(asked);
    if (!result.ok) throw apiError(result.error);
    if (result.record.kind !== 'site') throw new Error('a change of a site must end in one');
    return siteView(result.record);
  };
  const sites = (): SiteRecord[] => [...driver.core.state.records()].filter((record) => record.kind === 'site');
  return [
    { method: 'GET', path: '/v1/sites', handle: () => ({ sites: sites().map(siteView) }) },
    {
      method: 'GET',
      path: '/v1/sites/:name',
      handle: ({ params }) => {
        const site = sites().find(({ name }) => name === params.name);
        if (site === undefined) throw new ApiError(404, 'STAYPUT_SITE_UNKNOWN', `there is no site ${params.name}`);
        return { ...siteView(site), registered: registered(driver, site) };
      },
    },
    {
      method: 'POST',
      path: '/v1/sites',
      handle: ({ body }) => {
        const { instance, maxEids, ...site } = parseBody(NEW_SITE, body);
        const iid = (instance ?? defaultInstance) as SiteRecord['iid'];
        return change({ kind: 'add-site', iid, ...site, ...(maxEids === undefined ? {} : { maxEids }) });
      },
    },
    {
      method: 'POST',
      path: '/v1/sites/:name',
      handle: ({ params, body }) =>
        // What is missing in JSON is not there, rather than undefined.
        change({ kind: 'set-site', name: params.name ?? '', ...(parseBody(SITE_CHANGES, body) as SiteSettings) }),
    },
    {
      method: 'DELETE',
      path: '/v1/sites/:name',
      handle: ({ params }) => change({ kind: 'remove-site', name: params.name ?? '' }),
    },
    {
      method: 'POST',
      path: '/v1/sites/:name/keys',
      handle: ({ params, body }) =>
        change({ kind: 'add-site-key', name: params.name ?? '', key: parseBody(NEW_SITE_KEY, body) }),
    },
    {
      method: 'DELETE',
      path: '/v1/sites/:name/keys/:keyId',
      handle: ({ params }) => {
        const { keyId } = parseBody(KEY_REMOVAL, { keyId: params.keyId });
        return change({ kind: 'remove-site-key', name: params.name ?? '', keyId });
      },
    },
  ];
}

interface SiteView extends Omit<SiteRecord, 'kind' | 'iid' | 'keys'> {
  readonly instance: number;
  readonly keys: readonly { readonly keyId: number; readonly algorithm: number }[];
}

function siteView({ kind: _, iid, keys, ...site }: SiteRecord): SiteView {
  return { ...site, instance: iid, keys: keys.map(({ keyId, algorithm }) => ({ keyId, algorithm })) };
}

function registered(driver: Driver, { name }: SiteRecord): unknown[] {
  const owner = siteXtrIdOf(name);
  return [...driver.core.state.records()].flatMap((record) => {
    if (record.kind !== 'eid' || record.owner !== owner || record.state === 'released') return [];
    const { state, generation, locators, site } = record;
    const eid = parseEidKey(record.eid);
    const proxyReply = site?.proxyReply ?? false;
    return [{ eid: eid.kind === 'prefix' ? eid.prefix : eid.name, state, generation, locators, proxyReply }];
  });
}

const siteName = parsedBy(parseGroupName);
export const NEW_SITE_KEY = SITE_KEY.extend({ algorithm: SITE_KEY.shape.algorithm.default(2) }).superRefine(
  ({ secret }, context) => {
    if (Buffer.from(secret, 'base64').length < MIN_SECRET)
      context.addIssue({ code: 'custom', message: `a secret has at least ${MIN_SECRET} octets` });
  },
);
export const NEW_SITE = z.strictObject({
  name: siteName,
  instance: z.int().min(0).max(0xffffff).optional(),
  prefixes: z.array(SITE_PREFIX).min(1).max(256),
  keys: z.array(NEW_SITE_KEY).max(8).default([]),
  allowSha1: z.boolean().default(false),
  legacyReplay: z.boolean().default(false),
  maxEids: z.int().positive().optional(),
});
const SITE_CHANGES = z.strictObject({
  prefixes: z.array(SITE_PREFIX).min(1).max(256).optional(),
  allowSha1: z.boolean().optional(),
  legacyReplay: z.boolean().optional(),
  maxEids: z.int().min(0).optional(),
});
const KEY_REMOVAL = z.strictObject({ keyId: z.coerce.number().int().min(0).max(255) });
/** Short ones are what other implementations have in their examples; they are to be had, but not by accident. */
const MIN_SECRET = 6;
