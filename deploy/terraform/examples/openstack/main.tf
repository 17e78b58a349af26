# Not applied by a test: the provider is not at hand there. The module that renders the user data is tested.

terraform {
  required_providers {
    openstack = { source = "terraform-provider-openstack/openstack" }
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

resource "openstack_compute_instance_v2" "vm" {
  for_each    = toset(["db"])
  name        = each.key
  image_name  = "debian-12"
  flavor_name = "m1.small"
  user_data   = module.stayput.agents[each.key]
  network {
    name = "private"
  }
  # The token is spent after the first boot: a new one does not make a new VM.
  lifecycle {
    ignore_changes = [user_data]
  }
}
