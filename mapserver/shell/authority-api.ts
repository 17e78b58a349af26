/** What administrators see of the certificate authority, and do with it, on the Unix socket in the data folder. */
import { z } from 'zod';
import { ApiError, parseBody, type Route } from '../../runtime/http-api.ts';
import type { MapServer } from '../core/map-server.ts';
import { adoptAuthority } from './certificate-authority.ts';
import type { Dependents, Trust } from './trust.ts';

export function authorityRoutes(trust: Trust, core: MapServer): Route[] {
  const view = (): unknown => trust.view(core.state.records(), Date.now());
  return [
    { method: 'GET', path: '/v1/authority', handle: view },
    {
      method: 'POST',
      path: '/v1/authority/rotate',
      handle: ({ body }) => {
        const { certificate, key } = parseBody(ROTATE, body ?? {});
        const now = Date.now();
        trust.rotate(now, certificate === undefined ? undefined : adoptAuthority(certificate, key ?? '', now));
        return view();
      },
    },
    {
      method: 'POST',
      path: '/v1/authority/retire',
      handle: ({ body }) => {
        const { force } = parseBody(RETIRE, body ?? {});
        const left = trust.dependents(core.state.records(), Date.now());
        if ((left.agents > 0 || left.tokens.length > 0) && !force) {
          throw new ApiError(409, 'STAYPUT_CA_IN_USE', `${describeDependents(left)}; wait, or force it`);
        }
        trust.retire();
        return view();
      },
    },
  ];
}

function describeDependents({ agents, tokens }: Dependents): string {
  const more = tokens.length > NAMED_TOKENS ? ` and ${tokens.length - NAMED_TOKENS} more` : '';
  const named = `${tokens.slice(0, NAMED_TOKENS).join(', ')}${more}`;
  return [
    ...(agents > 0 ? [`${agents} agents have certificates of it and would have to join again`] : []),
    ...(tokens.length > 0 ? [`join tokens name it and would be useless: ${named}`] : []),
  ].join('; ');
}

const NAMED_TOKENS = 10;
const PEM = z.string().includes('-----BEGIN ').max(65_536);
const RETIRE = z.strictObject({ force: z.boolean().default(false) });
const ROTATE = z
  .strictObject({ certificate: PEM.optional(), key: PEM.optional() })
  .refine(({ certificate, key }) => (certificate === undefined) === (key === undefined), {
    message: 'a certificate needs its key, and a key its certificate',
  });
