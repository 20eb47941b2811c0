"""Measurements of a running exchange and of the machine under it. Never imported by the product."""
