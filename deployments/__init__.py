"""What runs the flows elsewhere: see README.md for the commands."""
