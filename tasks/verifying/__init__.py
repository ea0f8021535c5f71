"""Solutions of problems: written, and verified by answers, by tests, and by a judge."""
