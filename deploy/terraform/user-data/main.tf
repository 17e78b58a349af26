# User data for cloud-init, for whatever makes the VMs. No provider, so nothing is downloaded by `terraform init`.
terraform {
  required_version = ">= 1.4"
}

locals {
  install = {
    package        = var.package
    package_sha256 = var.package_sha256
  }
  templates = "${path.module}/../../cloud-init"
  host      = regex("^https://(\\[[^]]+\\]|[^:]+)", var.map_server)[0]
  init = concat(
    ["--host", trim(local.host, "[]")],
    flatten([for prefix in var.overlay : ["--overlay", prefix]]),
  )

  user_data = {
    for name, agent in var.agents : name => templatefile("${local.templates}/agent.yaml", merge(local.install, {
      # As strings of JSON, without their quotes, since the template has these.
      map_server = trim(jsonencode(var.map_server), "\"")
      token      = trim(jsonencode(lookup(var.tokens, name, "")), "\"")
      eids       = jsonencode(agent.eids)
      names      = jsonencode(agent.names)
    }))
  }
}
