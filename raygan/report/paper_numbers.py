"""The numbers that the paper publishes, with their source and what to know about them."""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "Xiang & Li 2017, arXiv 1704.03971"
AUTHORS_CODE = "README of the authors' code (github.com/stormraiser/GAN-weight-norm)"


@dataclass(frozen=True)
class PaperNumber:
    """A published difference of the final reconstruction loss of two norms."""

    first: str
    second: str
    percent: float
    """100 · (loss of the first / loss of the second − 1)."""
    words: str
    source: str


NUMBERS = (
    PaperNumber("wn", "vanilla", -10.5, "−10.5%", PAPER),
    PaperNumber("wn", "bn", -10.0, "about −10%", f"{PAPER}, abstract"),
)
"""The published differences."""

CAVEATS = (
    f"The {AUTHORS_CODE} says that the gradient of weight normalization in the code used for the "
    "paper was incorrect.",
    "The paper's search for codes minimises the mean over a batch of 32, so that its ε of 1e-6 "
    "slows it down; by default, ours minimises the sum. At 160 pixels, theirs ends about 6% higher "
    "for BN and WN and 12% higher for vanilla. The protocol “authors” is theirs: final.protocol in "
    "the YAML.",
    "The paper's numbers are of DCGANs of full width on CelebA, LSUN and CIFAR-10. A study of "
    "other images or smaller networks cannot confirm or contradict them.",
)
