"""Who judges an episode or a step."""
