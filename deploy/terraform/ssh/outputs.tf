output "agents" {
  description = "EIDs and names by the name of each agent, when it has joined."
  value       = { for name, agent in var.agents : name => { eids = agent.eids, names = agent.names } }
  depends_on  = [terraform_data.agent]
}
