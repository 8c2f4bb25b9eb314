"""The registered plan of a sweep, stored before its first trial, and its later changes.

``plan.json`` in the sweep's folder has an entry for the plan and one for each change: the time, the
number of trials planned by then, the content, and the SHA-256 of the content's canonical JSON (keys
sorted, no spaces, UTF-8). The content has four parts: the resolved YAML without the keys
:data:`NOT_IN_IT`, the claims, the digest of the images, and the commit of the code.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter

from raygan import recipe, stored
from raygan.errors import RayganError
from raygan.folder import PLAN_FILE
from raygan.report.claim import Claim, PlanEntry
from raygan.storage import Storage
from raygan.sweep.spec import claims
from raygan.sweep.spec.sweep_spec import SweepSpec, validate
from raygan.sweep.spec.yaml_loader import Document
from raygan.sweep.spec.yaml_sections import DeclaredClaim
from raygan.sweep.study import stored_sweep

NOT_IN_IT = ("storage", "scale", "budget", "tracking")
"""Keys of the YAML that say where and how a sweep runs; they are not part of its plan."""


class _Content(BaseModel):
    model_config = stored.STRICT

    sweep: dict[str, Any]
    claims: list[DeclaredClaim]
    images: stored.Word
    code: Annotated[str, Field(max_length=20_000)]


class Entry(BaseModel):
    """The plan as it was at one time."""

    model_config = stored.STRICT

    time: Annotated[str, Field(pattern=r"^[0-9TZ:.+-]{10,40}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    trials: stored.Count
    content: _Content


_ENTRIES = TypeAdapter(list[Entry])


def _comparable(content: dict[str, Any]) -> dict[str, Any]:
    """``content`` as this version would write it: with the defaults of keys that are younger than
    it, and in the form that plans of the same meaning share. As it is if it cannot be read."""
    sweep = {**content["sweep"], "train": {"quality": "none", **content["sweep"].get("train", {})}}
    try:
        spec = validate(Document(PLAN_FILE, sweep), known=True)
    except RayganError:
        return content
    return {**content, "sweep": _planned(stored_sweep.comparable(spec))}


def _planned(resolved: dict[str, Any]) -> dict[str, Any]:
    """The part of a resolved YAML that is planned, without its claims."""
    sweep = {key: value for key, value in resolved.items() if key not in (*NOT_IN_IT, "claims")}
    del sweep["train"]["checkpoint_every"]  # it says how, too
    return sweep


def content(spec: SweepSpec, images: str, code: str) -> dict[str, Any]:
    """The content of the plan. ``images``: their digest; ``code``: its commit or version."""
    whole = spec.resolved()
    return {"sweep": _planned(whole), "claims": whole["claims"], "images": images, "code": code}


def sha256(content: dict[str, Any]) -> str:
    """SHA-256 of a plan's canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def entries(sweep: Storage, *, mend: bool = False) -> list[Entry]:
    """The plan of ``sweep`` and its changes; empty if a version without plans began the sweep.

    Raises :class:`~raygan.errors.RayganError` if the file is damaged.
    """
    return sweep.read_kept(PLAN_FILE, _parse, mend=mend) or []


def register(sweep: Storage, spec: SweepSpec, images: str, code: str, trials: int) -> list[Entry]:
    """Store the plan, or an entry if it has changed. ``trials``: how many are planned so far."""
    known, now = entries(sweep, mend=True), content(spec, images, code)
    if known and _comparable(_dump(known[-1])["content"]) == _comparable(now):
        return known
    time = datetime.now(UTC).isoformat(timespec="seconds")
    new = {"time": time, "sha256": sha256(now), "trials": trials, "content": now}
    text = json.dumps([*map(_dump, known), new], indent=1)
    for _ in range(2):  # the first copy becomes the backup of the second
        sweep.write_kept(PLAN_FILE, text.encode())
    return _parse(text.encode())


def code_of(tags: dict[str, str]) -> str:
    """The commit of the code that the tags of a run name, or else its version; and the digests of
    the user's own recipes."""
    code = tags.get("git_commit") or f"raygan {tags.get('version.raygan', '?')}"
    own = [f"{file.name} {file.digest}" for file, _ in recipe.in_use().values()]
    return ", ".join([code, *own])


def history(sweep: Storage) -> tuple[PlanEntry, ...]:
    """The plan of ``sweep`` and its changes, in words."""
    described, before = [], None
    for entry in entries(sweep):
        flat = _flat(_comparable(_dump(entry)["content"]))
        changed = "" if before is None else _difference(before, flat)
        sets = flat.get("sweep.dataset") or []  # a mapping if there is one
        labels = tuple(str(one.get("label")) for one in sets)
        described.append(PlanEntry(entry.time, entry.sha256, changed, entry.trials, labels))
        before = flat
    return tuple(described)


def claims_of(sweep: Storage, spec: SweepSpec) -> tuple[Claim, ...]:
    """The claims of ``sweep``: those declared before its first trial, then later ones.

    A claim that was declared before the first trial counts even if the YAML no longer has it.
    """
    before = [entry for entry in entries(sweep) if not entry.trials]
    declared = spec.model_copy(update={"claims": before[-1].content.claims if before else []})
    first = claims.of_spec(declared)
    later = [Claim(c.kind, c.cell, c.other, c.margin, declared=False)
             for c in claims.of_spec(spec) if c not in first]  # fmt: skip
    return (*first, *later)


def _parse(data: bytes) -> list[Entry]:
    parsed = stored.parse(_ENTRIES, data)
    for entry in parsed:
        if sha256(_dump(entry)["content"]) != entry.sha256:
            raise ValueError(f"the SHA-256 of the plan of {entry.time} does not match its content")
    return parsed


def _dump(entry: Entry) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude_none=True)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    parts = [_flat(inner, f"{name}.{key}" if name else key) for key, inner in value.items()]
    return {key: inner for part in parts for key, inner in part.items()}


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    words = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if key == "claims":
            words.append("the claims")
        elif key == "sweep.dataset" and isinstance(old, list) and isinstance(new, list):
            # labels, as there are many keys
            words.append("the data sets, now " + ", ".join(str(one.get("label")) for one in new))
        elif key == "code":
            words.append(f"the code from {str(old)[:12]} to {str(new)[:12]}")
        else:
            words.append(f"`{key.removeprefix('sweep.')}` from {old} to {new}")
    return ", ".join(words)
