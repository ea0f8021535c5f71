"""The providers, a file each. Each states what differs from the protocol that it speaks."""
