"""The command line. `main.py` states its conventions; one module per family of commands."""
