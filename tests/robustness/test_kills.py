"""A real compile is killed and resumed: benchmarks/kill_and_resume.py with few kills."""

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
