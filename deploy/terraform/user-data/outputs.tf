output "agents" {
  description = "User data of each VM by its name. It holds the join token: sensitive, and in the state in plain text."
  value       = local.user_data
  sensitive   = true
}

output "map_server" {
  description = "User data of the map server; null without `overlay`. It holds no secret."
  value = length(var.overlay) == 0 ? null : templatefile("${local.templates}/mapserver.yaml", merge(local.install, {
    init_options = join(" ", local.init)
  }))
}
