"""Function calls: made, run and judged."""
