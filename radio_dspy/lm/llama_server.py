"""llama.cpp's server in a process of its own, which ends with the block or with the program, whichever is first.

Inside the program's own process the server could not always be ended: closing it while a request is under way waits
forever, and a file that makes llama.cpp abort takes the program along.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from radio_dspy.core.errors import CheckpointError, MissingExtraError
from radio_dspy.core.redaction import logger_of

logger = logger_of(__name__)


@contextlib.contextmanager
def serve(path: Path, *, context_tokens: int, threads: int) -> Iterator[str]:
    """Serve a model's OpenAI-compatible interface on a loopback port for the length of the ``with`` block.

    Args:
        path: A GGUF file.
        context_tokens: Longest prompt and reply together.
        threads: Processor threads.

    Yields:
        The server's address, ``http://127.0.0.1:PORT``.

    Raises:
        MissingExtraError: If llama.cpp, or a library of the system that it needs, is not installed.
        CheckpointError: If llama.cpp cannot load the file.
    """
    if find_spec("xllamacpp") is None:
        raise MissingExtraError("The local LM needs llama.cpp: pip install 'radio-dspy[local]'")
    settings = {"path": str(path.absolute()), "context_tokens": context_tokens, "threads": threads}
    importable = os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path if folder)
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(settings)],
            stdin=subprocess.PIPE,  # never written to: its end tells the server that this process is gone
            stdout=subprocess.PIPE,
            stderr=log,
            # The server imports what this process imports, and not what happens to lie in the working folder.
            env=os.environ | {"PYTHONPATH": importable},
            cwd=Path(__file__).parents[2],
        ) as process,
    ):
        try:
            url = next((line for line in process.stdout or () if line.startswith(b"http")), b"").decode().strip()
            if not url:
                said = _first_complaint(log) or f"exit code {process.wait()}"
                if said.startswith("ImportError: "):
                    raise MissingExtraError(
                        f"llama.cpp cannot start ({said}): install the library that it names "
                        "(on Debian: apt-get install libgomp1)."
                    )
                raise CheckpointError(
                    f"{path}: llama.cpp cannot load it ({said}). Give a GGUF file of a language model."
                )
            yield url
            if process.poll() is not None:
                logger.warning("llama.cpp ended with code %d: %s", process.returncode, _first_complaint(log))
        finally:
            process.kill()


def _first_complaint(log: IO[bytes]) -> str:
    """What llama.cpp wrote first, without its clock: later lines only say that something failed."""
    log.seek(0)
    return re.sub(r"^[\d.]+ [A-Z] ", "", log.readline().decode(errors="replace").strip())


def main() -> None:
    """The server's process: load, tell the address, wait for the end of the input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes; the other one decides
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever llama.cpp prints is no answer
    try:
        server = _start(**json.loads(sys.argv[1]))
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
    answer.write(f"{server.listening_address}\n")
    answer.flush()
    sys.stdin.read()
    os._exit(0)  # leaving any other way would wait for requests that are under way


def _start(path: str, context_tokens: int, threads: int) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = context_tokens
    params.n_parallel = 1  # replies do not depend on what else is asked at the same time
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = 1  # errors
    params.ui = False
    params.cache_prompt = False  # a reused prefix changes the last digits, and with them a sampled reply
    params.cache_ram_mib = 0
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
