"""The details in which the paper and the codes of SASRec differ, and who does what. Free of torch.

`PRESETS` is read off the paper and the public codes:

- `paper`: Kang & McAuley 2018, section III. Where it is silent (epsilon, initial weights): its own code.
- `tensorflow`: the authors' code, kang205/SASRec, `modules.py` and `model.py`.
- `pytorch`: the port most people use, pmixer/SASRec.pytorch, `model.py` and `main.py`.
- no preset: the blocks of `pytorch` as adapted by Klenitskiy & Vasilev 2023, whose tables are the published
  ones for cross-entropy (antklen/sasrec-bert4rec-recsys23), without dropout in attention.
"""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Norm = Literal["queries", "all", "post"]
Residual = Literal["input", "normalised"]
Scale = Literal["none", "sqrt-width"]
Place = Literal["input", "attention", "attention-output", "hidden", "output"]
Initial = Literal["normal", "xavier-normal", "xavier-uniform"]
InitialQkv = Literal[
    "normal", "xavier-normal", "xavier-uniform", "packed-xavier-normal", "packed-xavier-uniform"
]
FfnBias = Literal["zero", "uniform"]


@frozen
class Details:
    """One value for each detail; see the options of the same names."""

    norm: Norm
    residual: Residual
    final_norm: bool
    attention_bias: bool
    output_projection: bool
    scale: Scale
    dropouts: tuple[Place, ...]
    initial: Initial
    initial_qkv: InitialQkv
    ffn_bias: FfnBias
    epsilon: float


PAPER = Details(
    norm="all",
    residual="input",
    final_norm=False,
    attention_bias=False,
    output_projection=False,
    scale="none",
    dropouts=("input", "attention-output", "output"),
    initial="xavier-uniform",
    initial_qkv="xavier-uniform",
    ffn_bias="zero",
    epsilon=1e-8,
)
TENSORFLOW = Details(
    norm="queries",
    residual="normalised",
    final_norm=True,
    attention_bias=True,
    output_projection=False,
    scale="sqrt-width",
    dropouts=("input", "attention", "hidden", "output"),
    initial="xavier-uniform",
    initial_qkv="xavier-uniform",
    ffn_bias="zero",
    epsilon=1e-8,
)
PYTORCH = Details(
    norm="queries",
    residual="normalised",
    final_norm=True,
    attention_bias=True,
    output_projection=True,
    scale="sqrt-width",
    dropouts=("input", "attention", "hidden", "output"),
    initial="xavier-normal",
    initial_qkv="packed-xavier-normal",
    ffn_bias="uniform",
    epsilon=1e-8,
)
OURS = Details(
    norm="queries",
    residual="normalised",
    final_norm=True,
    attention_bias=True,
    output_projection=True,
    scale="sqrt-width",
    dropouts=("input", "hidden", "output"),
    initial="normal",
    initial_qkv="packed-xavier-uniform",
    ffn_bias="zero",
    epsilon=1e-8,
)
PRESETS: dict[str | None, Details] = {
    None: OURS,
    "paper": PAPER,
    "tensorflow": TENSORFLOW,
    "pytorch": PYTORCH,
}
