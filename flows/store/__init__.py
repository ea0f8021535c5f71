"""What lies in a storage, and how: places, digests, shards. The lowest layer of `flows`."""
