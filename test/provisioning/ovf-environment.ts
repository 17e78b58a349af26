/** The OVF environment that a hypervisor makes of properties: that of VMware, in short. */
export function ovfEnvironment(properties: Readonly<Record<string, string>>): string {
  const escaped = (text: string): string => text.replace(/[&<>"]/g, (each) => `&#${each.charCodeAt(0)};`);
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    '<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1" oe:id="vm-42">',
    '  <PlatformSection><Kind>VMware ESXi</Kind><Version>8.0</Version><Vendor>VMware, Inc.</Vendor></PlatformSection>',
    '  <PropertySection>',
    ...Object.entries(properties).map(
      ([key, value]) => `    <Property oe:key="stayput.${escaped(key)}" oe:value="${escaped(value)}"/>`,
    ),
    '  </PropertySection>',
    '</Environment>',
    '',
  ].join('\n');
}
