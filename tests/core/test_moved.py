"""Old module paths of this package, and of nobody else."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from radio_dspy.core import moved, passages


def test_an_old_path_warns_and_gives_the_names_of_the_new_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "radio_dspy.passages", raising=False)
    with pytest.warns(DeprecationWarning, match=r"passages has moved: import from radio_dspy\.core\.passages"):
        old = import_module("radio_dspy.passages")
    assert old.Passage is passages.Passage


@pytest.mark.parametrize("name", ["radio_dspy.spending", "radio_dspy.distillation.bulk"])
def test_old_paths_of_this_package_are_found(name: str) -> None:
    assert moved._OldPaths().find_spec(name) is not None


@pytest.mark.parametrize("name", ["spending", "metrics", "distillation.bulk", "other.radio_dspy.spending"])
def test_a_module_outside_this_package_is_left_alone(name: str) -> None:
    assert moved._OldPaths().find_spec(name) is None


def test_a_missing_module_of_the_users_own_stays_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import radio_dspy, spending"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'spending'" in done.stderr
