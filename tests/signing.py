"""Webhooks as OpenAI sends them: https://github.com/standard-webhooks/standard-webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid

KEY = b"a key of thirty-two random bytes"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


def event_of(job: str, kind: str = "batch.completed") -> bytes:
    """The body of an event."""
    made = {
        "id": f"evt_{uuid.uuid4().hex}",
        "object": "event",
        "created_at": int(time.time()),
        "type": kind,
        "data": {"id": job},
    }
    return json.dumps(made).encode()


def signed(body: bytes, *, key: bytes = KEY, age: float = 0, name: str = "") -> dict[str, str]:
    """The headers of an event.

    Args:
        age: of its signature, in seconds.
        name: its id; sent again, an event keeps it.
    """
    name, timestamp = name or f"wh_{uuid.uuid4().hex}", str(int(time.time() - age))
    content = b".".join([name.encode(), timestamp.encode(), body])
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {
        "content-type": "application/json",
        "webhook-id": name,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{signature}",
    }
