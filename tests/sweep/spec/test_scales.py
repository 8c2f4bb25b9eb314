"""What the trials of each cell take: `scale`, with `scale.by`."""

import pytest

from raygan.errors import ConfigError
from raygan.sweep.spec import plan, scales, sweep_spec
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import stored_sweep

GRID = "grid:\n  architecture: [dcgan, resnet]\n  features: [16, 64]\n"


def sweep(scale: str, grid: str = GRID) -> SweepSpec:
    return sweep_spec.validate(parse(f"name: a\n{grid}scale:\n{scale}", "x.yaml"))


def taken(spec: SweepSpec) -> dict[str, tuple[str, float, float]]:
    found = {}
    for cell in plan.cells(spec):
        scale = spec.scale.of(cell.values)
        found[cell.name] = (scale.width, scale.cpus_per_worker, scale.gpus_per_worker)
    return found


BOTH = """\
  gpus_per_worker: 1
  by:
    architecture:
      resnet: {workers: 2}
    features:
      64: {cpus_per_worker: 4}
"""


def test_axes_of_the_grid_set_what_differs():
    spec = sweep(BOTH)
    assert taken(spec) == {
        "dcgan_features=16": ("1", 1, 1),
        "dcgan_features=64": ("1", 4, 1),
        "resnet_features=16": ("2", 1, 1),
        "resnet_features=64": ("2", 4, 1),
    }
    assert [scale.by for scale in scales.of(spec)] == [{}] * 4


def test_the_stored_yaml_says_the_same():
    spec = sweep(BOTH)
    again = sweep_spec.validate(parse(stored_sweep.dump(spec), "stored"))
    assert taken(again) == taken(spec)


@pytest.mark.parametrize(
    ("values", "word"), [("[0.5, 1e-4]", "1e-4"), ("[0.5, 1e-4]", ".0001"), ("[1, 2]", "2")]
)
def test_numbers_are_named_as_they_are_written(values, word):
    spec = sweep(f"  by: {{lr: {{{word}: {{workers: 2}}}}}}\n", f"grid: {{lr: {values}}}\n")
    assert [scale.most for scale in scales.of(spec)] == [1, 2]


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (
            "  by:\n    architectur: {resnet: {workers: 2}}\n",
            "x.yaml:7: `scale.by.architectur` is no axis of `grid`: `grid` has architecture, "
            "features; did you mean architecture?",
        ),
        (
            "  by:\n    architecture:\n      resnt: {workers: 2}\n",
            "x.yaml:8: `scale.by.architecture.resnt` is no value of `grid.architecture`: it has "
            "dcgan, resnet; did you mean resnet?",
        ),
        (
            "  by:\n    features:\n      6-4: {workers: 2}\n",
            "x.yaml:8: `scale.by.features.6-4` is no value of `grid.features`: it has 16, 64; did "
            "you mean 64?",
        ),
        (
            "  by:\n    architecture:\n      resnet:\n        wrkers: 2\n",
            "x.yaml:9: unknown key `scale.by.architecture.resnet.wrkers`; did you mean `workers`?",
        ),
        (
            "  by:\n    architecture:\n      resnet:\n        workers: 0\n",
            "x.yaml:9: `scale.by.architecture.resnet.workers` (=0): input should be greater than "
            "or equal to 1",
        ),
        (
            "  by:\n    architecture: {resnet: {workers: 2}}\n    features: {64: {workers: 4}}\n",
            "x.yaml:8: `scale.by.features.64` and `scale.by.architecture.resnet` both set workers "
            "of the same cells; remove one",
        ),
        (
            "  gpus_per_worker: 0.5\n  by:\n    architecture:\n      resnet: {workers: 2}\n",
            "x.yaml:9: `scale.by.architecture.resnet`: `gpus_per_worker` (=0.5) must be a whole "
            "number if there are several `workers` (=2): they cannot share a GPU",
        ),
        (
            "  by:\n    architecture: {resnet: {workers: 3}}\n",
            "`train.batch_size` (=32) must be divisible by `scale.workers` (=3): it counts the "
            "images of all workers",
        ),
        ("  workers: {min: 3, max: 3}\n", "`min` (=3) must be below `max` (=3)"),
        ("  workers: {min: 1}\n", "the key `scale.workers.max` is missing"),
        (
            "  workers: {min: 5, max: 7}\n",
            "`train.batch_size` (=32) must be divisible by one of `scale.workers` (=5 to 7)",
        ),
        (
            "  gpus_per_worker: 0.5\n  workers: {min: 1, max: 2}\n",
            "`gpus_per_worker` (=0.5) must be a whole number if there are several `workers` (=2)",
        ),
        ("  workers: two\n", "`scale.workers` (='two'): input should be a valid integer"),
        ("  stalled_after: 90\n", "`scale.stalled_after` (=90): input should be a valid string"),
        ("  stalled_after: 0s\n", "`stalled_after` (='0s') must be a number and s, m, h or d"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_is_nearest(scale, said):
    with pytest.raises(ConfigError) as caught:
        sweep(scale)
    assert said in str(caught.value)


def test_without_a_grid_nothing_differs():
    with pytest.raises(ConfigError, match=r"is no axis of `grid`: there is no `grid`"):
        sweep("  by: {norm: {bn: {workers: 2}}}\n", "")


def test_batches_of_each_cell_are_shared_evenly():
    grid = "grid: {architecture: [dcgan, resnet], batch_size: [32, 33]}\n"
    with pytest.raises(ConfigError, match=r"`grid.batch_size` \(=33\) must be divisible"):
        sweep("  by: {architecture: {resnet: {workers: 2}}}\n", grid)
    sweep("  by: {batch_size: {32: {workers: 2}}}\n", grid)


def test_gpu_hours_can_be_capped_if_some_cell_takes_a_gpu():
    text = "name: a\ngrid: {architecture: [dcgan, resnet]}\nbudget: {gpu_hours: 1}\n"
    by = "scale: {by: {architecture: {resnet: {gpus_per_worker: 1}}}}"
    with pytest.raises(ConfigError, match="trials take no GPU"):
        sweep_spec.validate(parse(text, "x"))
    sweep_spec.validate(parse(text + by, "x"))


def test_a_trial_has_any_number_of_workers_that_share_the_batch():
    spec = sweep("  workers: {min: 2, max: 6}\n", "")
    assert spec.scale.widths(32) == [2, 4]
    assert spec.scale.widths(12) == [2, 3, 4, 6]
    assert spec.scale.stalled_seconds == 60
