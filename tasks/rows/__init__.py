"""Steps over rows and columns."""
