"""A real compile, and a training alone, is killed and resumed: the benchmarks with few kills."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_five_kills_change_nothing():
    command = [sys.executable, ROOT / "benchmarks" / "kill_and_resume.py", "--kills", "5", "--questions", "40"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)
    print(done.stdout)  # noqa: T201
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 kills: " in done.stdout
    assert "groups equal, weights equal, decision equal" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("how", [[], ["--best"], ["--architecture", "cross-encoder", "--lora"]], ids=" ".join)
def test_four_kills_of_a_training_change_nothing(how):
    command = [sys.executable, ROOT / "benchmarks" / "kill_training.py", "--kills", "4", *how]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kills: weights equal, losses equal" in done.stdout
