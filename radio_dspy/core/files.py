"""Write files and folders in one step, and check where they may be written."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from radio_dspy.core.errors import RadioError, RunError, SettingsError
from radio_dspy.core.redaction import holds_secret, redacted_value

# Put into folders by desktops, and by people for Git: a folder that holds nothing else is empty.
SYSTEM_FILES = frozenset({".DS_Store", ".directory", ".gitignore", ".gitkeep", ".keep", "Thumbs.db", "desktop.ini"})
_DISK = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO") if hasattr(errno, name)}
_FOREIGN = re.compile(r"\(os error (\d+)\)")
_SAVED = ("manifest.json", "program.json")  # of a saved program, which cannot be loaded with anything beside it
_INDEX = "passages*.jsonl"  # what a saved index has beside its manifest


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and takes the place of ``path`` in one step.

    Raises:
        SettingsError: If something is there that is no file: a folder, a link, a device or a pipe is not replaced.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise SettingsError(f"{path}: is there, and is no file; give another name.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not by tempfile, whose files are the owner's alone; cut, as the longest name leaves no room for more.
    temporary = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if path.exists():  # what was private stays private
            shutil.copymode(path, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_new(folder: Path, advice: str) -> None:
    """See that a folder is new or empty and can be written, before anything is done for what will lie there.

    Args:
        folder: Where something is to be written.
        advice: What to do if it is not free.

    Raises:
        SettingsError: If it is a file, holds something, or cannot be made or replaced.
    """
    target = resolved(folder, advice)
    if target.exists() and (not target.is_dir() or not is_empty(target)):
        raise SettingsError(f"{folder}: already there; {advice}")
    if target == Path.cwd() or (target.exists() and target.is_mount()):
        raise SettingsError(f"{folder}: is the working folder or a mount point, which cannot be replaced; {advice}")
    if problem := place_problem(target):
        raise SettingsError(f"{folder}: {problem}; {advice}")


def resolved(path: Path, advice: str) -> Path:
    """Resolve a path of the user's.

    Raises:
        SettingsError: If it leads nowhere: links in a circle, a name that is too long or that no system takes.
    """
    try:
        target = path.resolve()
        target.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise SettingsError(f"{str(path)[:200]!r}: leads nowhere ({error!s:.200}); {advice}") from error
    if target.is_symlink():  # since Python 3.13 a circle is left as it is
        raise SettingsError(f"{path}: leads nowhere (links in a circle); {advice}")
    return target


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing, but for files that a desktop or Git put there by itself."""
    return all(path.name in SYSTEM_FILES and path.is_file() for path in folder.iterdir())


def check_file(path: Path, advice: str) -> Path:
    """See that a file can be written, before anything is done for it; return where it is, behind links.

    Raises:
        SettingsError: If something is there that is no file, or none can be made.
    """
    target = resolved(path, advice)
    if target.exists() and not target.is_file():
        raise SettingsError(f"{path}: is there, and is no file; {advice}")
    problem = place_problem(target)
    if not problem and (target.parent / "config.json").is_file() and any(target.parent.glob("*.safetensors")):
        problem = f"lies among the weights in {target.parent}"
    if problem:
        raise SettingsError(f"{path}: {problem}; {advice}")
    return target


def check_replaced(path: Path, is_ours: Callable[[Path], bool], what: str, advice: str) -> None:
    """``check_file``, and see that what is there may go: it is empty, or proves to be what this library writes.

    Args:
        path: The file.
        is_ours: Whether the file that is there is such a one, by its content.
        what: What that is, for the message.
        advice: What to do if it is not.

    Raises:
        SettingsError: As for ``check_file``, or if it holds anything else.
    """
    target = check_file(path, advice)
    if target.exists() and target.stat().st_size and not is_ours(target):
        raise SettingsError(f"{path}: holds something else than {what}, and stays; {advice}")


def is_special(path: Path) -> bool:
    """Whether a name is neither a file nor a folder: of a pipe, a socket or a device, which is waited for without end.

    Example:
        >>> is_special(Path(os.devnull)), is_special(Path.cwd())
        (True, False)
    """
    return path.exists() and not path.is_file() and not path.is_dir()


def place_problem(path: Path) -> str:
    """Why nothing can be made at a path; empty where nothing is seen."""
    above = next(one for one in path.absolute().parents if one.exists())
    if not above.is_dir():
        return f"{above} is a file"
    for folder in path.absolute().parents:
        if all((folder / name).is_file() for name in _SAVED):
            return f"lies in the saved program {folder}, which could then not be loaded"
        if _is_index(folder):
            return f"lies in the saved index {folder}, to which nothing is added"
    return "" if os.access(above, os.W_OK | os.X_OK) else f"{above} cannot be written to"


def _is_index(folder: Path) -> bool:
    """Whether a folder is a saved index, by its manifest and passages."""
    try:
        manifest = folder / _SAVED[0]
        if not manifest.is_file() or not any(folder.glob(_INDEX)):
            return False
        said = json.loads(manifest.read_bytes())
        return {"format", "files"} <= said.keys()
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


@contextlib.contextmanager
def new_folder(folder: Path, advice: str) -> Iterator[Path]:
    """Yield a folder to fill; on success it becomes ``folder`` in one step, else nothing is left of it.

    Raises:
        SettingsError: As for ``check_new``, also where something came there meanwhile.
        RunError: If the disk is full or broken.
    """
    check_new(folder, advice)
    target = folder.resolve()
    with disk_errors(folder, "Nothing was written; make room, and do it again."):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".radio-dspy-") as temporary:
            making = Path(temporary) / target.name
            making.mkdir()
            yield making
            sync_folder(making)
            check_new(folder, advice)
            if not (target.exists() and take_place(making, target, of=SYSTEM_FILES)):
                _move_into(making, target, folder, advice)


def _move_into(making: Path, target: Path, folder: Path, advice: str) -> None:
    """Rename a folder to where nothing is, or an empty one."""
    found = [path for path in target.iterdir() if path.name in SYSTEM_FILES] if target.exists() else []
    for path in found:
        if not (making / path.name).exists():
            shutil.copy2(path, making)
        path.unlink()
    try:
        if sys.platform == "win32" and target.exists():  # there a folder replaces none
            target.rmdir()
        making.replace(target)
    except OSError as error:
        for path in found:
            shutil.copy2(making / path.name, path)
        if disk_problem(error):
            raise
        raise SettingsError(f"{folder}: cannot be written ({error.strerror}); {advice}") from error


def take_place(making: Path, target: Path, *, of: Collection[str] | None = None) -> bool:
    """Put a folder in the place of another one, which is removed with what it held under the same names.

    Files that only the other holds are in both, so that they are never missing. A reader and a kill find the one
    folder or the other.

    Args:
        making: The new one.
        target: The other one.
        of: The only names that the other may hold; None allows any.

    Returns:
        False where the system cannot do it, or the other holds more than files; then it is as it was.
    """
    try:
        shutil.copymode(target, making)
        for path in target.iterdir():
            if not (making / path.name).exists():
                os.link(path, making / path.name, follow_symlinks=False)
    except (OSError, NotImplementedError):
        return False
    if not _exchanged(making, target):
        return False
    held = {path.name for path in making.iterdir()}
    if held <= {path.name for path in target.iterdir()} and (of is None or held <= set(of)):
        return True
    _exchanged(making, target)  # something came there meanwhile
    return False


def _exchanged(one: Path, other: Path) -> bool:
    """Let two folders change their places in one step; False where the system cannot."""
    names = os.fsencode(one), os.fsencode(other)
    try:
        libc = ctypes.CDLL(None)
        if sys.platform == "darwin":
            return bool(libc.renamex_np(*names, 2) == 0)  # RENAME_SWAP
        return bool(libc.renameat2(-100, names[0], -100, names[1], 2) == 0)  # AT_FDCWD, RENAME_EXCHANGE
    except (AttributeError, OSError, TypeError):
        return False


def sync_folder(folder: Path) -> None:
    """See that all files of a folder are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def disk_problem(error: BaseException) -> str:
    """The disk's problem that raised an error; empty for any other error."""
    if isinstance(error, OSError):
        return str(error.strerror) if error.errno in _DISK else ""
    found = _FOREIGN.search(str(error))  # of libraries in Rust: safetensors, tokenizers
    return os.strerror(int(found[1])) if found and int(found[1]) in _DISK else ""


@contextlib.contextmanager
def disk_errors(path: Path, advice: str) -> Iterator[None]:
    """Tell a full, broken or read-only disk, and files of another user there, as an error of this library.

    Raises:
        RunError: In place of what the block raised for it.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, PermissionError) and Path(str(error.filename)).is_relative_to(path):
            problem = f"{error.filename}: {error.strerror}"
            raise RunError(f"{problem}. Is it another user's? Give yourself the right, or another folder.") from error
        if isinstance(error, RadioError) or not (problem := disk_problem(error)):
            raise
        raise RunError(f"{path}: cannot be written ({problem}). {advice}") from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file in one step, without known secrets."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    if holds_secret(text):
        text = json.dumps(redacted_value(value), indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        # An escape of JSON, too: what a string holds that UTF-8 cannot write, such as an unpaired surrogate.
        temporary.write_text(f"{text}\n", encoding="utf-8", errors="backslashreplace")


def write_lines(path: Path, rows: Iterator[Any] | list[Any]) -> None:
    """Write a JSON Lines file in one step."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
