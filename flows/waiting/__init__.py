"""Waiting for batch jobs: leaving, waking, the watcher, the webhook receiver."""
