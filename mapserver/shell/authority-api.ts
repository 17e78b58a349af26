/** What administrators see of the certificate authority, and do with it, on the Unix socket in the data folder. */
import { z } from 'zod';
import { ApiError, parseBody, type Route } from '../../runtime/http-api.ts';
import type { MapServer } from '../core/map-server.ts';
import { adoptAuthority } from './certificate-authority.ts';
import type { Trust } from './trust.ts';

export function authorityRoutes(trust: Trust, core: MapServer): Route[] {
  const view = (): unknown => trust.view(core.agents(), Date.now());
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
        const left = trust.dependents(core.agents(), Date.now());
        if (left > 0 && !force) {
          throw new ApiError(
            409,
            'STAYPUT_CA_IN_USE',
            `${left} agents have certificates of it and would have to join again; wait until they have renewed, or force it`,
          );
        }
        trust.retire();
        return view();
      },
    },
  ];
}

const PEM = z.string().includes('-----BEGIN ').max(65_536);
const RETIRE = z.strictObject({ force: z.boolean().default(false) });
const ROTATE = z
  .strictObject({ certificate: PEM.optional(), key: PEM.optional() })
  .refine(({ certificate, key }) => (certificate === undefined) === (key === undefined), {
    message: 'a certificate needs its key, and a key its certificate',
  });
