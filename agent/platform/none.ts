/** No platform that we know: addresses of interfaces, and the one from which the map server sees this host. */
import { FactsBuilder } from './facts-builder.ts';
import { likely, type PlatformDriver } from './platform.ts';

export const NONE: PlatformDriver = {
  name: 'none',
  title: 'no known platform',
  detect: () => likely('nothing else was recognised; locators are those of interfaces and what the map server sees'),
  read: () => Promise.resolve(new FactsBuilder().build()),
};
