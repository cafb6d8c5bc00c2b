"""The published agents, each a composition in one short file."""
