"""Which process gets which core: a pure plan, and the reading of the machine's cores.

A matcher is one busy thread whose latency everybody waits for, so it comes first; ingress workers spend their
time on signatures and come next, one core each; then the store. Settlement and the rest of the system share what
is left.

With fewer than four physical cores there is no core for each. Then it depends on what waking a process on another
core costs (zexchange/runtime/wakeups.py): where that is dear, matchers and store share one core, since an order goes
back and forth between them, and everything else stays off it; where it is cheap nothing is pinned, since a pinned
process is kept from an idle core.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from zexchange.runtime.wakeups import WakeUps

CORES_NEEDED = 4
"""Fewest physical cores for pinning: one matcher, one ingress worker, one for store and settlement, one for
the rest."""


USABLE_CPUS_ENV = "ZX_USABLE_CPUS"
"""By which the supervisor tells its children what it may use itself."""
DEAR_RATIO = 1.5
"""From here on waking a process on another core counts as dear. On two machines of two virtual cores it was 2.3 to 9,
and sharing a core took a sixth to a fifth off the time of an append; on bare metal it is about 1."""


class PinningPlan(msgspec.Struct, frozen=True, kw_only=True):
    """CPUs by process name; a process that is not named may run anywhere. `reason` is for people."""

    cpus: dict[str, tuple[int, ...]]
    reason: str


def pinning_plan(
    mode: str,
    cores: Sequence[tuple[int, ...]],
    matchers: Sequence[str],
    workers: Sequence[str],
    wakeups: WakeUps | None = None,
) -> PinningPlan:
    """Assign processes to physical cores; each core is the tuple of its CPUs (hardware threads), lowest
    first. `wakeups`: what was measured, where there are few of them."""
    if mode == "off":
        return PinningPlan(cpus={}, reason="off (pinning.mode)")
    if len(cores) < CORES_NEEDED:
        return _few_cores(cores, matchers, workers, wakeups)
    free = list(cores[1:])  # the first core serves interrupts on most machines
    shared = [cores[0]]
    cpus: dict[str, tuple[int, ...]] = {}
    for name in [*matchers, *workers]:
        if len(free) <= 1:  # keep one more core for store and settlement
            break
        cpus[name] = free.pop(0)
    if len(free) > 1:
        cpus["store"] = free.pop(0)
    shared += free
    rest = tuple(sorted(cpu for core in shared for cpu in core))
    for name in ("store", "settlement", "web", *matchers, *workers):
        cpus.setdefault(name, rest)
    missing = [name for name in [*matchers, *workers] if cpus[name] == rest]
    reason = "one core each for matchers and ingress workers"
    if missing:
        reason += f", as far as {len(cores)} cores go: {', '.join(missing)} share the rest"
    return PinningPlan(cpus=cpus, reason=reason)


def _few_cores(
    cores: Sequence[tuple[int, ...]],
    matchers: Sequence[str],
    workers: Sequence[str],
    wakeups: WakeUps | None,
) -> PinningPlan:
    few = f"{len(cores)} physical core{'s' * (len(cores) != 1)}, {CORES_NEEDED} are needed for one core each"
    if len(cores) < 2 or wakeups is None:
        return PinningPlan(cpus={}, reason=f"nothing: {few}")
    costs = (
        f"waking a process takes {wakeups.same_core_us:.0f} us on the same core, "
        f"{wakeups.other_core_us:.0f} us on another"
    )
    if wakeups.ratio < DEAR_RATIO:
        return PinningPlan(cpus={}, reason=f"nothing: {few}; {costs}")
    busy = cores[-1]  # the first core serves interrupts on most machines
    rest = tuple(sorted(cpu for core in cores[:-1] for cpu in core))
    cpus = dict.fromkeys(("store", *matchers), busy)
    cpus |= dict.fromkeys(("settlement", "web", *workers), rest)
    return PinningPlan(cpus=cpus, reason=f"matchers and store on one core, as {costs} ({few})")


def auto_workers(cores: int, shards: int) -> int:
    """Ingress workers for `workers = "auto"`: what matchers, the store and settlement leave, and at least
    one."""
    return max(1, cores - shards - 2)


def colocated(setting: str, cores: int) -> bool:
    """Whether ingress worker 0 runs in the thread of the first matcher, for `ingress.colocate`.

    With few cores an order is sooner done by one thread than handed to another one, which has to be woken and
    has no core of its own anyway.
    """
    return setting == "on" or (setting == "auto" and cores < CORES_NEEDED)


def usable_cpus() -> set[int]:
    """The CPUs that the exchange may use: of a process that the supervisor has pinned, all that it could have
    had."""
    told = os.environ.get(USABLE_CPUS_ENV, "")
    if told:
        return _cpu_list(told)
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def physical_cores(sysfs: Path = Path("/sys/devices/system/cpu")) -> list[tuple[int, ...]]:
    """The physical cores that the exchange may use, each as the tuple of its usable CPUs."""
    allowed = usable_cpus()
    cores: dict[tuple[int, ...], list[int]] = {}
    for cpu in sorted(allowed):
        try:
            text = (sysfs / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii")
            siblings = tuple(sorted(_cpu_list(text)))
        except (OSError, ValueError):
            siblings = (cpu,)
        cores.setdefault(siblings, []).append(cpu)
    return [tuple(cpus) for cpus in cores.values()]


def _cpu_list(text: str) -> set[int]:
    """`0,4-6` as {0, 4, 5, 6}."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus
