"""A real compile, and a training alone, is killed and resumed: the benchmarks with few kills and a small encoder."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, ROOT / "benchmarks" / name, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_five_kills_change_nothing(small):
    printed = run("kill_and_resume.py", "--kills", 5, "--questions", 16, "--encoder", small.name)
    assert "5 kills: " in printed
    assert "groups equal, weights equal, decision equal" in printed


@pytest.mark.parametrize("how", [[], ["--best"], ["--architecture", "cross-encoder", "--lora"]], ids=" ".join)
def test_four_kills_of_a_training_change_nothing(how, small):
    printed = run("kill_training.py", "--kills", 4, "--weights", small.name, *how)
    assert "4 kills: weights equal, losses equal" in printed
