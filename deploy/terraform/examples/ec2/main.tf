# Not applied by a test: the provider is not at hand there. The module that renders the user data is tested.

terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

variable "tokens" {
  description = "By VM: `stayput token create --eid 10.77.0.5/32 --name db --expires 1h`. TF_VAR_tokens='{\"db\":\"stp1.…\"}'."
  type        = map(string)
  sensitive   = true
}

variable "image" {
  description = "AMI with cloud-init."
  type        = string
}

module "stayput" {
  source         = "../../user-data"
  map_server     = "https://map.example.org:4342"
  package        = "https://packages.example.org/stayput_0.1.0_amd64.deb"
  package_sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
  agents         = { db = { eids = ["10.77.0.5/32"], names = ["db"] } }
  tokens         = var.tokens
}

resource "aws_instance" "vm" {
  for_each         = toset(["db"])
  ami              = var.image
  instance_type    = "t3.small"
  user_data_base64 = base64encode(module.stayput.agents[each.key])
  tags             = { Name = each.key }
  metadata_options {
    http_tokens = "required"
  }
  # The token is spent after the first boot: a new one does not make a new VM.
  lifecycle {
    ignore_changes = [user_data_base64]
  }
}
