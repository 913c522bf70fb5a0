"""Tasks: where data comes from, and the families that tasks are drawn from. Knows nothing of rules."""
