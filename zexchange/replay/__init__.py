"""Replaying recorded order flow through a running exchange, and comparing what it makes of it."""
