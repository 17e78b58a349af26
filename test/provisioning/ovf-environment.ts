/** The hypervisor's side of OVF: it reads a descriptor's properties and makes the OVF environment of them (DSP0243, 9.5 and 11). */
import { parseXml, XmlElement } from '@rgrove/parse-xml';

/** The environment of VMware, in short; properties by their whole names, `stayput.eid`. */
export function ovfEnvironment(properties: Readonly<Record<string, string>>): string {
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    '<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1" oe:id="vm-42">',
    '  <PlatformSection><Kind>VMware ESXi</Kind><Version>8.0</Version><Vendor>VMware, Inc.</Vendor></PlatformSection>',
    '  <PropertySection>',
    ...Object.entries(properties).map(
      ([key, value]) => `    <Property oe:key="${escaped(key)}" oe:value="${escaped(value)}"/>`,
    ),
    '  </PropertySection>',
    '</Environment>',
    '',
  ].join('\n');
}

/** What somebody fills in when they deploy it, `values` by whole names; the rest is as the descriptor says. */
export function deploy(descriptor: string, values: Readonly<Record<string, string>>): string {
  const properties: Record<string, string> = {};
  for (const section of elementsOf(ovfRoot(descriptor), 'VirtualSystem', 'ProductSection')) {
    for (const property of elementsOf(section, 'Property')) {
      const key = [section.attributes['ovf:class'], property.attributes['ovf:key']].filter(Boolean).join('.');
      const settable = property.attributes['ovf:userConfigurable'] === 'true';
      properties[key] = (settable ? values[key] : undefined) ?? property.attributes['ovf:value'] ?? '';
    }
  }
  const unknown = Object.keys(values).filter((key) => properties[key] === undefined);
  if (unknown.length > 0) throw new Error(`the descriptor has no property ${unknown.join(', ')}`);
  return ovfEnvironment(properties);
}

export function ovfRoot(descriptor: string): XmlElement {
  const { root } = parseXml(descriptor);
  if (root === null) throw new Error('no element');
  return root;
}

/** Those at a path of element names. */
export function elementsOf(parent: XmlElement, ...path: readonly string[]): XmlElement[] {
  const [first, ...rest] = path;
  if (first === undefined) return [parent];
  return parent.children
    .filter((child): child is XmlElement => child instanceof XmlElement && child.name === first)
    .flatMap((child) => elementsOf(child, ...rest));
}

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (each) => `&#${each.charCodeAt(0)};`);
}
