"""Where the thresholds of a collapse stand: runs made to collapse, and healthy ones.

    python tests/bench/collapse.py --out curves

Digits at 16 pixels. Healthy: learning rates that work, and slow ones. On purpose: learning rates
100 times those, from the start or from half of the run on; D trained while G is not, likewise; G
trained 100 times as fast as D. Whether these did harm is to be seen in the table: samples and D
over the last evaluations (medians), and what `raygan.gan.judge.collapse` says. Evaluations are kept in ``--out`` and not made again. About 15 s a run
on one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from raygan.data import DatasetConfig, ImageSet, load, prepare
from raygan.gan.config import TrainConfig
from raygan.gan.judge.collapse import JUDGED, VARIETY, find_collapse, find_untrained
from raygan.gan.state import TrainState
from raygan.gan.train import train

RATES = {
    "lr=2e-3": {"lr": 2e-3},
    "lr=5e-4": {"lr": 5e-4},
    "lr=1e-4": {"lr": 1e-4},
    "lr=2e-5": {"lr": 2e-5},
    "lr=5e-2 (100x)": {"lr": 5e-2},
    "lr=0.2 (100x)": {"lr": 0.2},
    "G frozen": {"lr": 1e-12, "lr_d": 5e-4},
    "G 100x as fast": {"lr": 5e-3, "lr_d": 5e-5},
}
FACTORS = {"G frozen at half": (0.0, 1.0), "100x at half": (100.0, 100.0)}
"""What the learning rates of G and D, 5e-4 before, are multiplied by at half of the run."""
METRICS = (
    VARIETY, "train/loss_g", "train/accuracy_real", "train/accuracy_fake",
    "val/reconstruction_loss",
)  # fmt: skip


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    images = load(prepare(DatasetConfig(name="digits", size=16), options.out / "data"))
    heads = ("variety", "loss G", "D on real", "D on fake", "loss of rec.")
    print(
        f"digits, 16 px, {len(images.train)} images; {options.iterations} iterations; medians of "
        f"the last {JUDGED} of 10 evaluations; the mean image's loss is {images.baseline:.3g}\n\n{'':33}"
        + "".join(f"{head:>13}" for head in heads)
    )
    for name in options.runs:
        for norm in options.norms:
            for seed in range(options.seeds):
                history = curve(name, norm, seed, images, options)
                levels = [
                    statistics.median(point[metric] for point in history[-JUDGED:])
                    for metric in METRICS
                ]
                numbers = "".join(f"{level:13.3g}" for level in levels)
                collapse = find_collapse(history, {"loss": "log"})
                verdict = collapse or find_untrained(history, images.baseline) or ""
                print(f"{name:18}{norm:9}seed {seed}{numbers}   {verdict}", flush=True)


def curve(
    name: str, norm: str, seed: int, images: ImageSet, options: argparse.Namespace
) -> list[dict[str, float]]:
    """The evaluations of one run, as long as they are numbers."""
    file = options.out / f"{norm}-{name}-{seed}.json"
    if file.exists():
        return json.loads(file.read_text())
    config = TrainConfig(
        norm=norm,
        features=8,
        code_size=32,
        iterations=options.iterations,
        evaluate_every=options.iterations // 10,
        reconstruction_steps=25,
        seed=seed,
        **RATES.get(name, {"lr": 5e-4}),
    )
    state = TrainState.create(config, images.shape)
    for evaluation in train(config, images, state):
        if not evaluation.finite:
            break
        if name in FACTORS and evaluation.step == config.iterations // 2:
            for optimizer, factor in zip(
                (state.optimizer_g, state.optimizer_d), FACTORS[name], strict=True
            ):
                optimizer.param_groups[0]["lr"] *= factor
    file.write_text(json.dumps(state.history))
    return state.history


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("curves"), help="folder of the curves")
    names = [*RATES, *FACTORS]
    parser.add_argument("--runs", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--norms", nargs="+", default=["vanilla", "bn", "wn"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
