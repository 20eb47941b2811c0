"""The rule book (docs/rules.md) in plain Python: a matching engine to read, and to compare the C engine with.

It uses naive lists and dicts and does everything in the order in which the rule book says it. It shares no
code with the C engine except the message codec, the genesis file and the Merkle trees. In reading order:

* `amounts`: what fills are worth and orders hold (section 1)
* `state`: accounts, keys, orders, markets (section 2)
* `engine`: a record, nonces, duplicates; queries (section 3)
* `reports`: how commands are answered (section 4)
* `matching`: what happens between orders, and how an order ends (sections 5 and 6)
* `triggers`: what happens by itself: expiry, waiting orders (section 7)
* `orders`: new, cancel, amend, cancel all (sections 5 and 6)
* `operator_commands`: accounts, keys, deposits (section 8)
* `check`: the standing truths (section 9)
* `encoding`: state root and snapshot (docs/formats.md sections 3 and 4)
"""

from zexchange.reference.engine import ReferenceEngine

__all__ = ["ReferenceEngine"]
