"""Providers for agent frameworks."""
