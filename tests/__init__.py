"""The suite: unit, golden, model and end-to-end tests; tests/conftest.py has what they share."""
