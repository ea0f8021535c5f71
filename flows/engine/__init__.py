"""The engine: shards through steps, as Prefect task runs."""
