"""`python -m flows view`: the rows of datasets, as pages of a server on this machine."""
