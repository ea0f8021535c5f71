"""What can go wrong with a look at rows."""

from __future__ import annotations


class ViewError(ValueError):
    """Rows can't be looked at. The message says which, why, and the way out."""


class MissingError(ViewError):
    """There's no such row, dataset or image."""
