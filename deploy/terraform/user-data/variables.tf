variable "map_server" {
  description = "URL of the map server, https://HOST[:PORT], for the agents."
  type        = string
  validation {
    condition     = can(regex("^https://(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9._-]+)(:[0-9]+)?$", var.map_server))
    error_message = "map_server is https://HOST or https://HOST:PORT."
  }
}

variable "agents" {
  description = "The VMs by a name of your choice: EIDs and names that each joins with. Without EIDs the token assigns one (--pool)."
  type = map(object({
    eids  = optional(list(string), [])
    names = optional(list(string), [])
  }))
  default = {}
}

variable "tokens" {
  description = "A join token for each VM, by the same names: single-use and short-lived. A VM without one gets it from its platform (docs/platforms.md)."
  type        = map(string)
  default     = {}
  sensitive   = true
}

variable "overlay" {
  description = "Prefixes of the overlay, for the user data of a new map server; empty: none is made."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for prefix in var.overlay : can(cidrhost(prefix, 0))])
    error_message = "overlay has something that is no prefix."
  }
}

variable "package" {
  description = "Debian package or tarball: a URL, or a path in the image. Empty: the image has Stayput installed."
  type        = string
  default     = ""
  validation {
    condition     = var.package == "" || can(regex("^[^\\s'\"]+\\.(deb|tar\\.gz)$", var.package))
    error_message = "package ends in .deb or .tar.gz."
  }
}

variable "package_sha256" {
  description = "SHA-256 of the package in hex; empty: it is not checked."
  type        = string
  default     = ""
  validation {
    condition     = can(regex("^([0-9a-f]{64})?$", var.package_sha256))
    error_message = "package_sha256 has 64 hexadecimal digits."
  }
}
