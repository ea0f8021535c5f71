"""Limits that processes and machines share."""
