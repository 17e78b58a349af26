/** What no service should say, said by each: nothing of it becomes a locator, a name, or more than text. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { platformReport, platformReportLines } from '../../agent/platform/report.ts';
import { type EmulatedPlatform, PlatformEmulator, type Route } from './emulator.ts';
import { HETZNER, PLATFORMS } from './platforms.ts';

const ADDRESSES = {
  'the service itself': '169.254.169.254',
  loopback: '127.0.0.1',
  'an address of an agent inside the overlay': 'fd53:7461:7970:7574::1',
  multicast: '224.0.0.1',
  'a command': '198.51.100.7;reboot',
  'an address that is not whole': '198.51.100',
  'a control sequence': '\u001b[2J',
  'a long word': '9'.repeat(200),
};

for (const [name, platform] of Object.entries(PLATFORMS)) {
  test(`${name}: no public address that peers could not use, whatever is said in its place`, async (t) => {
    for (const [what, hostile] of Object.entries(ADDRESSES)) {
      const quoted = JSON.stringify(hostile).slice(1, -1);
      const lying = changed(platform, (body) => body.replace(PUBLIC, isJson(body) ? quoted : hostile));
      const examination = await (await PlatformEmulator.start(t, lying)).examine(name);
      const found = (examination.facts?.locators ?? []).filter(({ scope }) => scope === 'public');
      assert.deepEqual(
        found.filter(({ address }) => !IPV6_OF_THEIRS.test(address)),
        [],
        what,
      );
      assertPlain(examination);
      const lies = found.length === 0 && name !== 'oracle';
      if (lies) assert.ok(examination.facts === null || examination.facts.refused.length > 0, what);
    }
  });

  test(`${name}: identifiers and values with control characters, spaces or no end are refused`, async (t) => {
    for (const hostile of ['a\u001b[31m', 'two words', 'x'.repeat(1000), '\u0000', '`reboot`', '../../etc/passwd\n#']) {
      const quoted = JSON.stringify(hostile).slice(1, -1);
      const lying = changed(platform, (body) => body.replace(WORDS, isJson(body) ? quoted : hostile));
      assertPlain(await (await PlatformEmulator.start(t, lying)).examine(name));
    }
  });
}

test('what is said takes no longer to understand than it is long', async (t) => {
  const long = `- ip: 10.0.0.2\n${'\n'.repeat(100_000)}- ip: 10.0.0.3`;
  const routes = { ...HETZNER.routes, '/hetzner/v1/metadata/private-networks': long };
  const { facts } = await (await PlatformEmulator.start(t, { ...HETZNER, routes })).examine('hetzner');
  assert.equal(facts?.locators.filter(({ scope }) => scope === 'local').length, 1);
});

function assertPlain(examination: Awaited<ReturnType<PlatformEmulator['examine']>>): void {
  const { facts } = examination;
  const said = [
    facts?.instanceId,
    facts?.zone,
    facts?.region,
    facts?.network,
    ...Object.values(facts?.provisioning ?? {}),
  ];
  for (const value of said) if (value != null) assert.match(value, /^[\w./:@+=,[\]-]{1,512}$/);
  for (const line of platformReportLines(platformReport(examination))) assert.doesNotMatch(line, /\p{C}/u);
}

/** All bodies, through whatever decides about them. */
function changed(platform: EmulatedPlatform, change: (body: string) => string): EmulatedPlatform {
  const routes = Object.entries(platform.routes ?? {}).map(([path, route]): [string, Route] => {
    if (typeof route === 'string') return [path, change(route)];
    return [
      path,
      (request) => {
        const answer = route(request);
        if (typeof answer === 'string') return path.includes('token') ? answer : change(answer);
        return answer?.body === undefined ? answer : { ...answer, body: change(answer.body) };
      },
    ];
  });
  return { ...platform, routes: Object.fromEntries(routes) };
}

function isJson(body: string): boolean {
  return /^\s*[[{]/.test(body);
}

/** That of the emulated platforms. */
const PUBLIC = /198\.51\.100\.\d+/g;
/** Identifiers, places and values for Stayput of theirs. */
const IPV6_OF_THEIRS = /^2[0-9a-f]{3}:/;
const WORDS =
  /i-0123456789abcdef0|eu-west-1a?|westeurope|europe-west1-b|02aab8a4[\w-]+|eu-frankfurt-1|fra1|fsn1-dc14|EWR|eu-central|fi-hel2|fr-par-1|ch-gva-2|zone1|nova|one|10\.77\.0\.5\/32|db|29bea708[\w-]+|00322b68[\w-]+|b0fa911b[\w-]+/g;
