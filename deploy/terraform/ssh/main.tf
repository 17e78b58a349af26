# Installs a map server and agents on hosts that are there, and lets them join. Uses the ssh of this machine, so its
# configuration, keys, agent and known hosts count, and no provider but the built-in one.
#
# A token goes from the map server to the agent through a pipe: it is in no variable, plan, state, file or argument.
terraform {
  required_version = ">= 1.4"
}

locals {
  environment = {
    PACKAGE     = abspath(var.package)
    SSH_OPTIONS = join(" ", var.ssh_options)
    MAP_SERVER  = var.map_server.ssh
    URL_HOST    = strcontains(var.map_server.hosts[0], ":") ? "[${var.map_server.hosts[0]}]" : var.map_server.hosts[0]
  }
}

resource "terraform_data" "map_server" {
  # Installing again is an upgrade; an overlay that is there is kept.
  triggers_replace = [var.map_server, filesha256(var.package)]

  provisioner "local-exec" {
    command = "sh '${path.module}/install.sh' mapserver"
    environment = merge(local.environment, {
      INIT_OPTIONS = join(" ", concat(
        flatten([for host in var.map_server.hosts : ["--host", host]]),
        flatten([for prefix in var.map_server.overlay : ["--overlay", prefix]]),
        ["--zone", var.map_server.zone],
      ))
    })
  }
}

resource "terraform_data" "agent" {
  for_each         = var.agents
  depends_on       = [terraform_data.map_server]
  triggers_replace = [each.value, filesha256(var.package)]

  provisioner "local-exec" {
    command = "sh '${path.module}/install.sh' agent"
    environment = merge(local.environment, {
      HOST   = each.value.ssh
      WISHES = join(" ", concat([for eid in each.value.eids : "--eid ${eid}"], [for name in each.value.names : "--name ${name}"]))
    })
  }
}
