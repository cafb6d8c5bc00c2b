"""Who proposes the next task."""
