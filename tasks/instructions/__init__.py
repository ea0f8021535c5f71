"""Instructions: suggested by texts, evolved, made from nothing."""
