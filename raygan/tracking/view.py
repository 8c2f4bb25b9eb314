"""A view of a sweep in MLflow's UI: its trials grouped by cell, selected columns, curves by cell.

MLflow stores a shared view as a tag of the experiment; a link opens it by its key. The format is
internal to MLflow. It was read from the source of MLflow 3.17 and is written for that version only.
With any other version, the link shows the same trials without the view.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from raygan.folder import HTML
from raygan.records import LOSS
from raygan.tracking.context import EXPERIMENT_NOTE
from raygan.tracking.runs import NOTE

if TYPE_CHECKING:
    from mlflow import MlflowClient

VERSION = "3.17."
"""The versions of MLflow that have this format."""
_TAG = "mlflow.sharedViewState."
_PARAMS = ("cell", "lr", "seed", "outcome")
_METRICS = ("final/best", "final/last", LOSS, "stability/worsening_fresh", "stability/log_area")
_CHARTS = (
    ("Reconstruction loss by cell", LOSS, "LINE"),
    ("Final test, best generator", "final/best", "BAR"),
    ("Variety of samples", "val/variety", "LINE"),
    ("Worsening, fresh images", "stability/worsening_fresh", "BAR"),
)
_SECTION = "raygan"


def state(parent: str) -> dict[str, Any]:
    """The view of the trials under the run ``parent``, in MLflow's format."""
    charts = [
        {
            "uuid": f"raygan-{number}",
            "type": kind,
            "metricKey": metric,
            "selectedMetricKeys": [metric],
            "metricSectionId": _SECTION,
            "displayName": title,
            "deleted": False,
            "isGenerated": False,
            "runsCountToCompare": 100,
            "scaleType": "log" if metric == LOSS else "linear",
            "xAxisKey": "step",
            "yAxisKey": "metric",
            "useGlobalXaxisKey": True,
            "useGlobalLineSmoothing": True,
        }
        for number, (title, metric, kind) in enumerate(_CHARTS)
    ]
    section = {
        "uuid": _SECTION,
        "name": "By cell",
        "display": True,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
    }
    return {
        "searchFilter": _filter(parent),
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": [
            *(f"params.`{name}`" for name in _PARAMS),
            *(f"metrics.`{name}`" for name in _METRICS),
        ],
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "param", "groupByData": "cell"}],
        },
        "groupsExpanded": {},
        "useGroupedValuesInCharts": True,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": [section],
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "selectedXAxisMetricKey": "",
        },
    }


def link(client: MlflowClient, experiment: str, parent: str, sweep: str) -> str:
    """Path in MLflow's UI to the trials under ``parent``, the run of the sweep named ``sweep``.

    It stores the view if MLflow has the right version. It also adds links to the verdict and the
    report to the experiment's description.
    """
    import mlflow

    note = client.get_experiment(experiment).tags.get(NOTE, EXPERIMENT_NOTE)
    if note.endswith(EXPERIMENT_NOTE):  # otherwise a user has written another one
        run = f"#/experiments/{experiment}/runs/{parent}"
        links = f"**{sweep}**: [verdict]({run}) · [report]({run}/artifacts/{HTML})"
        client.set_experiment_tag(experiment, NOTE, f"{links}\n\n{EXPERIMENT_NOTE}")
    query = {"compareRunsMode": "CHART", "searchFilter": _filter(parent)}
    if mlflow.__version__.startswith(VERSION):
        text = json.dumps(state(parent), separators=(",", ":"))
        key = hashlib.sha256(text.encode()).hexdigest()
        client.set_experiment_tag(experiment, f"{_TAG}{key}", text)
        query = {"viewStateShareKey": key, "compareRunsMode": "CHART"}
    return f"/#/experiments/{experiment}/runs?{urlencode(query)}"


def _filter(parent: str) -> str:
    return f"tags.`mlflow.parentRunId` = '{parent}'"
