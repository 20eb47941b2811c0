"""zexchange: a verifiable central limit order book exchange.

Nothing is imported here on purpose: the command line must answer `--help` at once. The public entry points
are `zexchange.client` (the SDK) and the command `zexchange` (`python -m zexchange`).
"""

__version__ = "0.1.0"
