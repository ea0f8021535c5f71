"""Texts and images from prompts."""
