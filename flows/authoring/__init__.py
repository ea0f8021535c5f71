"""What flows are written with: `Pipeline`, `flow`, routing, preview, saving."""
