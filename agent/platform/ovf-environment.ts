/** The OVF environment (DSP0243, DSP8027): properties of a virtual appliance, as XML. */
import { parseXml, XmlElement } from '@rgrove/parse-xml';
import type { FactsBuilder } from './facts-builder.ts';
import { PlatformError } from './platform.ts';

/** Properties for Stayput, and the identifier of the environment. @throws PlatformError */
export function addOvfEnvironment(facts: FactsBuilder, text: string): void {
  if (text.length > MAX_TEXT) throw new PlatformError('too-large', `an OVF environment of ${text.length} characters`);
  // Entities can make a gigabyte of a kilobyte; no environment has any.
  if (/<!(DOCTYPE|ENTITY)/i.test(text)) throw new PlatformError('malformed', 'the OVF environment declares a DOCTYPE');
  let root: XmlElement | null;
  try {
    root = parseXml(text).root;
  } catch (cause) {
    throw new PlatformError('malformed', 'the OVF environment is not XML', { cause });
  }
  if (root === null || localName(root.name) !== 'Environment') {
    throw new PlatformError('malformed', 'the OVF environment has no element Environment');
  }
  facts.text('instance-id', attribute(root, 'id'));
  for (const section of elements(root, 'PropertySection')) {
    for (const property of elements(section, 'Property')) {
      facts.provision(attribute(property, 'key') ?? '', attribute(property, 'value'));
    }
  }
}

function elements(parent: XmlElement, name: string): XmlElement[] {
  return parent.children
    .filter((child): child is XmlElement => child instanceof XmlElement && localName(child.name) === name)
    .slice(0, MAX_ELEMENTS);
}

/** By its local name: the prefix of the namespace is the writer's choice. */
function attribute(element: XmlElement, name: string): string | undefined {
  const found = Object.entries(element.attributes).find(([key]) => localName(key) === name);
  return found?.[1];
}

function localName(name: string): string {
  return name.slice(name.indexOf(':') + 1);
}

const MAX_TEXT = 256 * 1024;
const MAX_ELEMENTS = 256;
