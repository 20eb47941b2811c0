"""Commands to the store that keeps the log, with redis-py's errors turned into ours in one place."""

from __future__ import annotations

from typing import Any, Protocol

import redis
import redis.exceptions


class StoreUnavailable(Exception):
    """The store did not answer. Whether it carried out the command is unknown."""


class StoreRefused(Exception):
    """The store answered with an error and changed nothing: out of memory, disk trouble, read-only, no
    permission."""


class IdRefused(StoreRefused):
    """The ID of an append is not above the newest one: someone has written since."""


class StreamClient(Protocol):
    """What the log needs of a store: one method of redis-py's `Redis`, replies parsed as redis-py parses
    them."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Raises redis-py's exceptions."""


class EmptyStore:
    """A store with nothing in it, for logs that are all in an archive: whatever is read, there is none."""

    def execute_command(self, *_args: Any, **_options: Any) -> Any:
        return []


def one_connection(client: redis.Redis) -> StreamClient:
    """A client on one connection that is never replaced unnoticed, as a pool replaces a closed one.

    A store that was restarted, perhaps with less in it than before, then shows as `StoreUnavailable` once,
    so that a writer looks at the tip before it goes on. Raises redis-py's errors when it cannot connect.
    """
    return redis.Redis(connection_pool=client.connection_pool, single_connection_client=True)


def command(client: StreamClient, *args: Any) -> Any:
    """Run one command. Raises `StoreUnavailable`, `StoreRefused` or `IdRefused`, nothing else."""
    try:
        return client.execute_command(*args)
    except redis.exceptions.ResponseError as error:
        if "equal or smaller than the target stream top item" in str(error):
            raise IdRefused(str(error)) from error
        raise StoreRefused(f"{args[0]}: {error}") from error
    except (redis.exceptions.RedisError, OSError) as error:
        # RedisError also covers replies that cannot be parsed: then the connection is worthless, as if it
        # had broken.
        raise StoreUnavailable(f"{args[0]}: {error}") from error
