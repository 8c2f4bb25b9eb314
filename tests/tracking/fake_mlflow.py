"""An MLflow server in memory, behind MLflow's own client interface, that can fail at any request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import FileInfo, Metric, Param, Run, RunData, RunInfo, RunTag
from mlflow.store.entities import PagedList


@dataclass
class Stored:
    """What the server has of a run."""

    name: str
    tags: dict[str, str]
    status: str = "RUNNING"
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[tuple[Any, ...], Metric] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    """Artifacts in the order in which they came; a name that came twice is there once."""
    contents: dict[str, bytes] = field(default_factory=dict)

    def logged(self, key: str) -> list[tuple[int, float]]:
        return [(one.step, one.value) for one in self.metrics.values() if one.key == key]


class FakeClient:
    """Those methods of ``MlflowClient`` that raygan calls."""

    def __init__(self) -> None:
        self.runs: dict[str, Stored] = {}
        self.requests: list[tuple[str, Any]] = []
        self.fail_before: set[str] = set()
        """Methods whose next call fails without an effect."""
        self.fail_after: set[str] = set()
        """Methods whose next call fails although it has had its effect."""
        self.fail_late: set[str] = set()
        """``log_batch``, if its next call fails and has its effect just before the one after it."""
        self._late: list[tuple[Any, ...]] = []
        self.page = 2

    def trial(self, name: str = "wn lr=1e-4") -> Stored:
        (found,) = [run for run in self.runs.values() if run.name == name]
        return found

    def made(self, method: str) -> list[Any]:
        return [what for name, what in self.requests if name == method]

    def _request(self, method: str, what: Any = None) -> None:
        self.requests.append((method, what))
        if method in self.fail_before:
            self.fail_before.discard(method)
            raise ConnectionError(method)

    def _answer(self, method: str) -> None:
        if method in self.fail_after:
            self.fail_after.discard(method)
            raise TimeoutError(method)

    def create_run(self, _: str, run_name: str, tags: dict[str, str]) -> Run:
        self._request("create_run", run_name)
        run_id = f"run-{len(self.runs)}"
        self.runs[run_id] = Stored(run_name, dict(tags))
        self._answer("create_run")
        return self._entity(run_id)

    def search_runs(
        self, _: list[str], query: str, max_results: int = 1000, page_token: str | None = None
    ) -> PagedList[Run]:
        self._request("search_runs", query)
        key, _, value = query.removeprefix("tags.`").removesuffix("'").partition("` = '")
        found = [run_id for run_id, run in self.runs.items() if run.tags.get(key) == value]
        first, most = int(page_token or 0), min(max_results, self.page)
        token = str(first + most) if first + most < len(found) else None
        return PagedList([self._entity(run_id) for run_id in found[first : first + most]], token)

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
    ) -> None:
        if not (metrics or params or tags):
            return
        self._request("log_batch", list(metrics))
        assert len(metrics) <= 1000
        if "log_batch" in self.fail_late:
            self.fail_late.discard("log_batch")
            self._late.append((run_id, metrics, params, tags))
            raise TimeoutError("log_batch")
        while self._late:
            self._take(*self._late.pop())
        self._take(run_id, metrics, params, tags)
        self._answer("log_batch")

    def _take(
        self,
        run_id: str,
        metrics: Sequence[Metric],
        params: Sequence[Param],
        tags: Sequence[RunTag],
    ) -> None:
        run = self.runs[run_id]
        for one in metrics:  # a server has the same metric once
            run.metrics.setdefault((one.key, one.step, one.timestamp, one.value), one)
        run.params |= {param.key: param.value for param in params}
        run.tags |= {tag.key: tag.value for tag in tags}

    def update_run(self, run_id: str, status: str) -> None:
        self._request("update_run", status)
        self.runs[run_id].status = status

    def set_terminated(self, run_id: str, status: str) -> None:
        self._request("set_terminated", status)
        self.runs[run_id].status = status
        self._answer("set_terminated")

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self._request("set_tag", key)
        self.runs[run_id].tags[key] = value

    def log_text(self, run_id: str, _: str, name: str) -> None:
        self._request("log_text", name)
        self._keep(run_id, name)

    def log_artifacts(self, run_id: str, folder: str, place: str) -> None:
        self._request("log_artifacts", sorted(path.name for path in Path(folder).iterdir()))
        for path in sorted(Path(folder).iterdir()):
            self._keep(run_id, f"{place}/{path.name}")
            self.runs[run_id].contents[f"{place}/{path.name}"] = path.read_bytes()
            self._answer("log_artifacts")  # after the first file

    def log_artifact(self, run_id: str, path: str, place: str = "") -> None:
        self._request("log_artifact", path)
        self._keep(run_id, f"{place}/{Path(path).name}".removeprefix("/"))

    def list_artifacts(self, run_id: str, place: str) -> list[FileInfo]:
        self._request("list_artifacts", place)
        names = self.runs[run_id].files
        return [FileInfo(name, False, 1) for name in names if name.startswith(f"{place}/")]

    def _keep(self, run_id: str, name: str) -> None:
        if name not in self.runs[run_id].files:
            self.runs[run_id].files.append(name)

    def _entity(self, run_id: str) -> Run:
        run = self.runs[run_id]
        latest: dict[str, Metric] = {}
        for metric in run.metrics.values():
            if metric.key not in latest or metric.step >= latest[metric.key].step:
                latest[metric.key] = metric
        info = RunInfo(run_id, "1", "user", run.status, 0, None, "active", "mem:", run.name)
        params = [Param(*item) for item in run.params.items()]
        return Run(
            info, RunData(list(latest.values()), params, [RunTag(*tag) for tag in run.tags.items()])
        )
