"""Judges, scorers, classifiers and reward models."""
