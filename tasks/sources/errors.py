"""What goes wrong with sources."""


class SourceError(ValueError):
    """Rows that can't be had. The message says what is wrong with the source and the way out."""
