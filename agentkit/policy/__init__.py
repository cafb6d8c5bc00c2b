"""How what the agent sees becomes an action."""
