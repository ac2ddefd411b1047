"""What cannot be written to standard output or error costs no work."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from radio_dspy.cli.places import check_places
from radio_dspy.cli.streams import LastingStream
from radio_dspy.core.errors import SettingsError

SCRIPT = """
from radio_dspy.cli.streams import keep_streams
keep_streams()
import sys
from pathlib import Path
for _ in range(5000):
    print("nDCG \\u00b1 0.1 \\u2192 \\u4e2d")
    print("progress", file=sys.stderr)
open(sys.argv[1], "w").write("done")
"""


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_what_an_encoding_lacks_is_written_as_an_escape(encoding):
    data = io.BytesIO()
    stream = LastingStream(io.TextIOWrapper(data, encoding=encoding))
    stream.write("\u00b1 \u4e2d \u2192")
    stream.flush()
    assert data.getvalue().decode(encoding).endswith("\u4e2d \u2192" if encoding == "utf-8" else "\\u4e2d \\u2192")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell and /dev/full")
@pytest.mark.parametrize("end", [">/dev/full", "2>/dev/full", ">&-", "2>&-", "| head -n 1", ">/dev/full 2>&1"])
def test_a_stream_that_ends_ends_nothing(end, tmp_path):
    command = f'set -o pipefail; "{sys.executable}" -c "$0" "{tmp_path}/done" {end}'
    done = subprocess.run(["bash", "-c", command, SCRIPT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, (tmp_path / "done").read_text()) == (0, "done")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert ("could not be written" in done.stderr) == (end == ">/dev/full")


def test_a_program_without_a_console():
    assert LastingStream(None).write("nobody reads it") == 15


@pytest.mark.parametrize("place", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_result_cannot_be_written_over_an_open_stream(place):
    with pytest.raises(SettingsError, match="is no file of its own"):
        check_places({"json_file": Path(place)}, "whole")
