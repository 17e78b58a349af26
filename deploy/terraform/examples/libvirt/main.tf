# Not applied by a test: the provider is not at hand there. The module that renders the user data is tested.

terraform {
  required_providers {
    libvirt = {
      source  = "dmacvicar/libvirt"
      version = "~> 0.8.0"
    }
  }
}

variable "tokens" {
  description = "By VM: `stayput token create --eid 10.77.0.5/32 --name db --expires 1h`. TF_VAR_tokens='{\"db\":\"stp1.…\"}'."
  type        = map(string)
  sensitive   = true
}

module "stayput" {
  source         = "../../user-data"
  map_server     = "https://map.example.org:4342"
  package        = "https://packages.example.org/stayput_0.1.0_amd64.deb"
  package_sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
  agents         = { db = { eids = ["10.77.0.5/32"], names = ["db"] } }
  tokens         = var.tokens
}

resource "libvirt_volume" "root" {
  for_each = toset(["db"])
  name     = "${each.key}.qcow2"
  source   = "https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-amd64.qcow2"
}

resource "libvirt_cloudinit_disk" "seed" {
  for_each  = toset(["db"])
  name      = "${each.key}-seed.iso"
  user_data = module.stayput.agents[each.key]
  # The token is spent after the first boot: a new one does not make a new seed.
  lifecycle {
    ignore_changes = [user_data]
  }
}

resource "libvirt_domain" "vm" {
  for_each  = toset(["db"])
  name      = each.key
  memory    = 1024
  cloudinit = libvirt_cloudinit_disk.seed[each.key].id
  disk {
    volume_id = libvirt_volume.root[each.key].id
  }
  network_interface {
    network_name = "default"
  }
}
