"""The same recipe and seed give the same numbers, in processes that share nothing."""

from __future__ import annotations

from pathlib import Path

from engine_helpers import Small, command, figures

from recore.api import Result


def test_fresh_processes_agree_to_the_last_bit(home: Path, tmp_path: Path, whole: Result) -> None:
    started = [
        command(
            "run", home / "tiny.yaml", "--runs", f"runs{salt}", "--quiet", cwd=tmp_path, PYTHONHASHSEED=salt
        )
        for salt in ("1", "2")
    ]
    folders = []
    for process in started:
        out, err = process.communicate()
        assert process.returncode == 0, err
        folders.append(Path(tmp_path / out.strip()))
    first, second = (figures(folder) for folder in folders)
    assert first == second
    # And the process of the tests, with whatever ran in it before, agrees with them.
    assert figures(whole.folder) == first


def test_another_seed_gives_other_numbers(small: Small, whole: Result) -> None:
    other = small(seed=1)
    assert figures(other.folder)["weights"] != figures(whole.folder)["weights"]
    assert other.record["seed"] == 1
    assert other.record["card"]["protocol"] == whole.record["card"]["protocol"]
    assert other.record["card"]["treatment"]["seed"] == 1


def test_what_happens_in_between_does_not_enter(small: Small, whole: Result) -> None:
    """Neither torch's own generator nor how often the run was looked at."""
    import torch

    torch.manual_seed(1234)
    before = torch.get_rng_state()
    again = small()
    assert torch.equal(torch.get_rng_state(), before)
    assert figures(again.folder) == figures(whole.folder)
