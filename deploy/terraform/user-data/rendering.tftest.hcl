variables {
  map_server     = "https://map.example.org:4342"
  overlay        = ["10.77.0.0/16"]
  package        = "https://packages.example.org/stayput_0.1.0_amd64.deb"
  package_sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
  agents = {
    db   = { eids = ["10.77.0.5/32"], names = ["db"] }
    pool = {}
  }
  tokens = { db = "stp1.one" }
}

run "each_vm_has_its_own_join_file" {
  command = plan
  assert {
    condition     = jsondecode(yamldecode(output.agents["db"]).write_files[0].content).token == "stp1.one"
    error_message = "the token of db is not in its join file"
  }
  assert {
    condition     = yamldecode(output.agents["db"]).write_files[0].permissions == "0600"
    error_message = "others can read the join file"
  }
  assert {
    condition     = jsondecode(yamldecode(output.agents["pool"]).write_files[0].content).eids == []
    error_message = "pool asks for an EID"
  }
  assert {
    condition     = strcontains(yamldecode(output.map_server).runcmd[0], "mapserver init --host map.example.org --overlay 10.77.0.0/16")
    error_message = "the map server is not initialised for its own URL"
  }
}

run "what_would_break_out_of_a_shell_word_is_refused" {
  command = plan
  variables {
    package = "https://packages.example.org/x'; reboot; '.deb"
  }
  expect_failures = [var.package]
}

run "a_host_that_would_run_a_command_is_refused" {
  command = plan
  variables {
    map_server = "https://$(reboot)"
  }
  expect_failures = [var.map_server]
}

run "a_prefix_that_would_run_a_command_is_refused" {
  command = plan
  variables {
    overlay = ["10.77.0.0/16;reboot"]
  }
  expect_failures = [var.overlay]
}

run "plain_http_is_refused" {
  command = plan
  variables {
    map_server = "http://map.example.org"
  }
  expect_failures = [var.map_server]
}
