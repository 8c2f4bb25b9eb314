"""Resources that a sweep waits for: what is asked of the cluster, and what its autoscaler says."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from ray.util.placement_group import placement_group, remove_placement_group

from raygan.background import Looking
from raygan.errors import ResourceError
from raygan.records import DATASET
from raygan.shown import duration, shown
from raygan.sweep.cluster import ray_quirks, tune
from raygan.sweep.cluster.ray_quirks import Bundles, Scaling
from raygan.sweep.spec.yaml_sections import Scale
from raygan.sweep.study.study import Study

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
GIVE_UP_SECONDS = 45.0
"""A request for which the autoscaler starts no node in this time can never be met."""
DEAD_SECONDS = 30.0
"""One that has reported nothing for so long may have died: usually it reports every 5 s."""
GIVE_UP_DEAD_SECONDS = 300.0
"""It is waited for so long: a cloud that is slow to answer may keep it silent."""
PATIENCE_SECONDS = 30.0
"""Trials whose workers take longer to start are said to wait, if the cluster says so, too."""
AGAIN_SECONDS = 60.0
"""Between two lines that say the same."""

Say = Callable[[str], None]


def room(scales: Sequence[Scale], *, ours: bool, say: Say = print) -> int:
    """How many trials may run at once; waits until an autoscaler has made room for one of each
    cell.

    ``scales``: those of all cells; ``ours``: whether the cluster was started by
    :func:`.tune.connect`. ``say`` is told what is waited for. Raises
    :class:`~raygan.errors.ResourceError`, after :data:`GIVE_UP_SECONDS`, if the cluster can never
    hold one trial.
    """
    at_once = tune.concurrency(scales, ours=ours)
    for scale in scales:
        if scale.autoscaling and not ours and not tune.holds(scale, tune.alive()):
            _wait(scale, say)
    return at_once


def _wait(scale: Scale, say: Say) -> None:
    group = placement_group(_bundles(scale))
    try:
        words, autoscaler = _Words(say), Autoscaler()
        answered = time.monotonic()
        while not tune.holds(scale, tune.alive()):
            told = autoscaler.ask()
            if told.failures or (told.coming and group.id.hex() not in told.refused):
                answered = time.monotonic()
            elif time.monotonic() - answered > (
                GIVE_UP_DEAD_SECONDS if _is_dead(told) else GIVE_UP_SECONDS
            ):
                raise ResourceError(tune.too_small(scale, tune.alive(), _never(told)))
            words.say(
                f"waiting for resources: one trial asks for {tune.asks(scale)}",
                _answer(told, refused=group.id.hex() in told.refused),
            )
            time.sleep(LOOK_SECONDS)
    finally:
        remove_placement_group(group)


class Autoscaler:
    """Whether the cluster's autoscaler is alive, and what it has told last."""

    def __init__(self) -> None:
        self._mark: str | None = None
        self._since = 0.0

    def ask(self) -> Scaling:
        """What it has told. Once it has told nothing new for :data:`DEAD_SECONDS`, it is not alive,
        and what it told last does not count; raises whatever Ray raises."""
        told, now = ray_quirks.scaling(), time.monotonic()
        if told.mark != self._mark:
            self._mark, self._since = told.mark, now
        if told.alive and now - self._since >= DEAD_SECONDS:
            return Scaling(waiting=told.waiting, mark=told.mark)
        return told


def _is_dead(told: Scaling) -> bool:
    """Whether there was an autoscaler that reports nothing any more."""
    return bool(told.mark) and not told.alive


def _never(told: Scaling) -> str:
    if _is_dead(told):
        return f"the autoscaler, which could add one, {_DEAD}; start the cluster again, or"
    if not told.alive:
        return "no autoscaler is running on this cluster to add one; start it with one, or"
    return (
        "its autoscaler adds none for it, because no node type is large enough or its limit of "
        "nodes is reached; change these, or"
    )


_DEAD = "has reported nothing for a while: it may have died (see `monitor.log` on the head node)"


def _answer(told: Scaling, *, refused: bool) -> str:
    """``refused``: whether it adds no node for any of the trials that wait."""
    if told.coming:
        counts = Counter(told.coming).items()
        nodes = ", ".join(f"{count} × {name or 'node'}" for name, count in sorted(counts))
        return f"the autoscaler has asked for {shown(nodes)}"
    if told.failures:
        return f"the autoscaler cannot start nodes ({shown(told.failures[-1])}) and tries again"
    if not told.alive:
        dead = f"the autoscaler {_DEAD}"
        return dead if _is_dead(told) else "no autoscaler is running on this cluster"
    if refused:
        return (
            "the autoscaler adds no node for them: no node type is large enough, or its limit of "
            "nodes is reached"
        )
    return "the autoscaler has started none yet"


def _bundles(scale: Scale) -> list[dict[str, float]]:
    """What Ray Train asks of the cluster for one trial, with the fewest workers."""
    bundle = {"CPU": scale.cpus_per_worker}
    if scale.gpus_per_worker:
        bundle["GPU"] = scale.gpus_per_worker
    return [bundle] * scale.fewest


class _Words:
    """Says something when it changes, and for how long it has been so now and then."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._last = ""
        self._since = self._said = 0.0

    def say(self, what: str, why: str) -> None:
        """``what`` is the same all the time, or nearly; ``why`` is what is told anew."""
        now = time.monotonic()
        if why != self._last:
            self._last, self._since, self._said = why, now, now
            self._say(f"{what}; {why}")
        elif now - self._said >= AGAIN_SECONDS:
            self._said = now
            self._say(f"{what}; {why} (for {duration(now - self._since)})")

    def stop(self) -> None:
        """What was said is over."""
        self._last = ""


class Watch(Looking):
    """Says, on a thread of its own, which trials wait for resources, and why; a context manager."""

    def __init__(self, study: Study, say: Say) -> None:
        self._study, self._words, self._autoscaler = study, _Words(say), Autoscaler()
        self._since: dict[str, float] = {}
        super().__init__(self._try_to_look, lambda _: LOOK_SECONDS, "resources")

    def _try_to_look(self) -> None:
        try:
            self.look()
        except Exception as error:  # Ray's own words for what it cannot tell now
            logger.info("the cluster's resources cannot be told: %s", error)

    def look(self) -> None:
        """Say it if it is so."""
        now = time.monotonic()
        counted = dict(self._study.counted_until)
        waiting = [trial for trial, until in counted.items() if until is None]
        self._since = {trial: self._since.get(trial, now) for trial in waiting}
        late = [t for t, since in self._since.items() if now - since >= PATIENCE_SECONDS]
        if not late:
            self._words.stop()
            return
        spec = self._study.spec
        scales = {tune.asks(s): s for s in (self._scale(trial) for trial in late)}
        forms = {form for scale in scales.values() for form in _forms(scale)}
        told = self._autoscaler.ask()
        asked = [group for group, bundles in told.waiting if bundles in forms]
        count = min(len(late), len(asked))
        # where trials differ, a heavier one waits until lighter ones end, as it should
        others = spec.scale.by and not spec.scale.autoscaling and count < len(counted)
        if not count or others:  # its workers are starting, however slowly
            self._words.stop()
            return
        each = ", or ".join(scales)
        what = f"{count} of {len(counted)} trials wait for resources, {each} each"
        answer = _answer(told, refused=told.refused.issuperset(asked))
        self._words.say(what, answer if spec.scale.autoscaling else "all are taken now")

    def _scale(self, trial: str) -> Scale:
        record = self._study.records[trial]
        return self._study.spec.scale.of({**record.config, DATASET: record.dataset})


def _forms(scale: Scale) -> list[Bundles]:
    """The placement groups that one trial may wait for: one for each number of workers."""
    bundle = tuple(sorted(_bundles(scale)[0].items()))
    return [(bundle,) * count for count in range(scale.fewest, scale.most + 1)]
