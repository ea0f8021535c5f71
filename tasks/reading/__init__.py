"""Reading what models send."""
