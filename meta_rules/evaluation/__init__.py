"""How good is a rule, against what one would use instead: one protocol for every method."""
