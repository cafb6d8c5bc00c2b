"""A world for agentkit in a package of its own."""
