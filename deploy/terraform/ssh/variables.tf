variable "package" {
  description = "Debian package or tarball on this machine; it is copied to each host."
  type        = string
  validation {
    condition     = can(regex("\\.(deb|tar\\.gz)$", var.package))
    error_message = "package ends in .deb or .tar.gz."
  }
}

variable "map_server" {
  description = "Where the map server is: [USER@]HOST for ssh, the names and addresses under which agents reach it (first the one they join at), and the prefixes of the overlay."
  type = object({
    ssh     = string
    hosts   = list(string)
    overlay = list(string)
    zone    = optional(string, "stayput.internal")
  })
  validation {
    condition     = length(var.map_server.hosts) > 0 && length(var.map_server.overlay) > 0
    error_message = "map_server needs a host and a prefix."
  }
  validation {
    condition = alltrue([
      for word in concat([var.map_server.ssh, var.map_server.zone], var.map_server.hosts, var.map_server.overlay) :
      can(regex("^[A-Za-z0-9_][A-Za-z0-9_.:/@-]*$", word))
    ])
    error_message = "map_server has a value with characters that no host, prefix or zone has."
  }
}

variable "agents" {
  description = "Hosts by a name of your choice: [USER@]HOST for ssh, and the EIDs and names that each joins with."
  type = map(object({
    ssh   = string
    eids  = list(string)
    names = optional(list(string), [])
  }))
  default = {}
  validation {
    condition = alltrue([
      for word in flatten([for agent in var.agents : concat([agent.ssh], agent.eids, agent.names)]) :
      can(regex("^[A-Za-z0-9_][A-Za-z0-9_.:/@=-]*$", word))
    ])
    error_message = "an agent has a value with characters that no host, EID or name has."
  }
  validation {
    condition     = alltrue([for agent in var.agents : length(agent.eids) > 0])
    error_message = "each agent needs an EID."
  }
}

variable "ssh_options" {
  description = "More arguments for ssh, such as [\"-i\", \"key\", \"-J\", \"bastion\"], without spaces in them. Host keys are checked as ssh is configured to."
  type        = list(string)
  default     = []
}
