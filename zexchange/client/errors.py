"""What the client can raise.

The whole tree::

    ZexchangeError
     ├── ConnectFailed            no connection could be made, or the exchange refused the session
     ├── Disconnected             the connection is gone and the request was certainly not applied
     ├── NoAnswer                 a query was not answered in time; queries change nothing, so just ask again
     ├── OutcomeUnknown           sent, but not answered in time: it may have been applied
     ├── DeploymentMismatch       the exchange is not the deployment that was asked for
     ├── ProtocolViolation        the exchange sent something this client cannot understand
     ├── EventsLost               the queue of events overflowed and its oldest were dropped
     ├── MarketNeeded             several shards: an order id alone does not name an order; a ValueError too
     ├── KeyFileError             a key file is missing, malformed, readable by others, or already there
     ├── NoExchange               no running exchange was found in the data folder
     └── Rejected                 refused, with a numbered reason
          └── one class per reason code, generated: zexchange.client.rejections

A `Rejected` is certain: nothing was changed. Only `OutcomeUnknown` leaves a question open, and its
text says how to answer it.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ConnectFailed",
    "DeploymentMismatch",
    "Disconnected",
    "EventsLost",
    "KeyFileError",
    "MarketNeeded",
    "NoAnswer",
    "NoExchange",
    "OutcomeUnknown",
    "ProtocolViolation",
    "RejectedBase",
    "ZexchangeError",
]


class ZexchangeError(Exception):
    """Base of everything the client raises on purpose; anything else is a wrong argument or a bug.

    `exit_code` is what the command line ends with (zexchange.cli.exits).
    """

    exit_code: ClassVar[int] = 1

    def __reduce__(self) -> tuple[object, ...]:
        # Not every class is made from its text alone; a pool of processes has to get them across all the same.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(
    kind: type[ZexchangeError], args: tuple[object, ...], state: dict[str, object]
) -> ZexchangeError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class ConnectFailed(ZexchangeError):
    """No session could be established. Nothing was sent."""

    exit_code = 3


class Disconnected(ZexchangeError):
    """The connection is gone, and the request was never sent: it was certainly not applied."""

    exit_code = 3


class MarketNeeded(ZexchangeError, ValueError):
    """The deployment has several shards, and order ids are per shard: name the market too."""

    exit_code = 2


class NoAnswer(ZexchangeError):
    """A query was not answered in time. Queries change nothing: ask again."""

    exit_code = 3


class OutcomeUnknown(ZexchangeError):
    """A signed batch was sent and not answered in time: it may or may not have been applied.

    Do not simply send the order again: that would be a second order. ``client.resolve(error)`` sends the *same* bytes
    again; the nonce inside makes that exactly-once, so the answer is the original outcome if the batch was applied,
    and a first outcome if it was not. ``frame`` can be kept and resolved by a later client with the same key.
    ``final``: the exchange no longer keeps the outcome, so that to ask again is of no use, and it will not be applied.
    """

    def __init__(self, message: str, *, nonce: int, shard: int, frame: bytes, final: bool = False) -> None:
        super().__init__(message)
        self.nonce = nonce
        self.shard = shard
        self.frame = frame
        self.final = final


class DeploymentMismatch(ZexchangeError):
    """The exchange is another deployment than the pinned one, or its genesis does not hash to its deployment id."""


class ProtocolViolation(ZexchangeError):
    """The exchange broke the protocol; the connection was closed."""


class EventsLost(ZexchangeError):
    """Events were not read fast enough: the oldest ``lost`` of them were dropped."""

    def __init__(self, lost: int) -> None:
        super().__init__(
            f"{lost} events were not read in time and dropped; ask for open orders and balances instead"
        )
        self.lost = lost


class KeyFileError(ZexchangeError):
    """A key file cannot be used; the text names the file and says what to do."""


class NoExchange(ZexchangeError):
    """No running exchange was found in the data folder."""

    exit_code = 3


class RejectedBase(ZexchangeError):
    """Base of the generated ``Rejected``: the exchange (or the client itself) refused, and nothing was changed."""

    exit_code = 4
