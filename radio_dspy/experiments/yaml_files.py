"""Read YAML from strangers safely: within bounds, without addresses or other files."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.validation import checked_text, is_plain_name, shown

if TYPE_CHECKING:
    import yaml

LARGEST_FILE = 1 << 20
MOST_VALUES = 20_000  # with every alias written out
DEEPEST = 30
_NOT_DECIMAL = re.compile(r"^[-+]?0[0-7_]|:")  # an octal number, and one of hours and minutes
_MODELS = {"encoder", "checkpoint", "other", "lm"}
_FILES = {"corpus", "train", "test", "test_corpus", "file"}
_ADDRESS = re.compile(
    r"[a-z][a-z0-9+.-]*://|https?:|%3a|^[\\/]{2}|\\\\|^[^/\\]+/[\\/]|(^|[/@])(\[[0-9a-f:.]+\]|[\w-]+(\.[\w-]+)*):\d{2,5}(/|$)"
    r"|(^|/)localhost(/|$)|(^|/)\d{1,3}(\.\d{1,3}){3}(/|$)",
    re.IGNORECASE,
)


def read_yaml(path: Path) -> Any:
    """Read a YAML file; anchors and merge keys may be used.

    Raises:
        SettingsError: If it cannot be read, is too large or too deep, or has a key twice.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise SettingsError(f"{path}: larger than {LARGEST_FILE:,} bytes; give an experiment's YAML file.")
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise SettingsError(f"{path}: cannot be read ({error}); give an experiment's YAML file.") from error
    return parse_yaml(text, f"{path}: ")


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; see ``read_yaml``."""
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                _check_size(node, where)
                _check_keys(node, where)
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
        _check_texts(value, where)
        return value
    except yaml.YAMLError as error:
        raise SettingsError(f"{where}not YAML ({' '.join(str(error).split())}).") from error
    except RecursionError as error:
        raise SettingsError(f"{where}deeper than {DEEPEST} levels.") from error
    except (ValueError, TypeError, OverflowError, AttributeError, KeyError, IndexError) as error:  # a date, a number
        raise SettingsError(f"{where}holds a value that cannot be read ({error!r:.200}).") from error


def _check_size(root: yaml.Node, where: str) -> None:
    """Refuse what would grow beyond bounds, or without end, when its aliases are written out."""
    sizes: dict[int, int] = {}
    above: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        if depth > DEEPEST:
            raise SettingsError(f"{where}deeper than {DEEPEST} levels.")
        if id(node) in above:
            raise SettingsError(f"{where}line {node.start_mark.line + 1}: an alias of what it stands in.")
        if id(node) not in sizes:
            above.add(id(node))
            sizes[id(node)] = 1 + sum(size(one, depth + 1) for one in _within(node))
            above.discard(id(node))
        if sizes[id(node)] > MOST_VALUES:
            raise SettingsError(f"{where}more than {MOST_VALUES:,} values with its aliases written out.")
        return sizes[id(node)]

    size(root, 1)


def _within(node: yaml.Node) -> list[yaml.Node]:
    value = node.value
    if not isinstance(value, list):
        return []
    return [part for one in value for part in (one if isinstance(one, tuple) else (one,))]


def _check_keys(root: yaml.Node, where: str) -> None:
    """Refuse what YAML's reader would take without a word: the last of two keys, a number that is not decimal."""
    todo, done = [root], set()
    while todo:
        node = todo.pop()
        if id(node) in done:
            continue
        done.add(id(node))
        todo += _within(node)
        if node.tag.endswith(":int") and _NOT_DECIMAL.search(node.value):
            raise SettingsError(
                f"{where}line {node.start_mark.line + 1}: YAML reads {node.value:.80} in base 8 or 60; write it in "
                "decimal, or in quotation marks."
            )
        keys: dict[Hashable, int] = {}
        for one in node.value if isinstance(node.value, list) else ():
            key = one[0] if isinstance(one, tuple) else None
            if key is None or not isinstance(key.value, str) or key.tag.endswith(":merge"):
                continue
            line = key.start_mark.line + 1
            if (first := keys.setdefault(key.value, line)) != line:
                raise SettingsError(f"{where}line {line}: key {shown(key.value)} stands at line {first} already.")


def _check_texts(value: Any, where: str) -> None:
    if isinstance(value, str):
        checked_text(value, where.rstrip(": "))
    elif isinstance(value, Mapping):
        for one in (*value.keys(), *value.values()):
            _check_texts(one, where)
    elif isinstance(value, list | tuple | set):
        for one in value:
            _check_texts(one, where)


def check_names(settings: Mapping[str, Any], where: str, path: str = "") -> None:
    """Refuse addresses and code in place of models, and files and weights outside the data's folder.

    An experiment file comes from whoever wrote it: what it names gets the user's key, questions and passages. What the
    user gives with ``--set`` is not checked here.

    Args:
        settings: Of the file's defaults, or of one of its rows.
        where: For the message.
        path: The key of these settings.

    Raises:
        SettingsError: For the first such name, with its key.
    """
    for name, value in settings.items():
        key = f"{path}.{name}" if path else str(name)
        if isinstance(value, Mapping):
            check_names(value, where, key)
        elif name == "root" and path == "data" and value is not None:
            raise SettingsError(f"{where}: {key}: a file that is shared names no folder; give it with --data FOLDER.")
        elif not isinstance(value, str):
            continue
        elif name in _MODELS and _ADDRESS.search(value.strip()):
            raise SettingsError(
                f"{where}: {key}: {shown(value)} names an address; an experiment file may name models alone. If you "
                f"trust it, give it yourself with --set {key}=..."
            )
        elif name in _FILES | _MODELS and leaves(value):
            raise SettingsError(
                f"{where}: {key}: {shown(value)} lies outside the data's folder; name a file below it"
                f"{' or a model' if name in _MODELS else ''}, or give --set {key}=... yourself."
            )
        elif name in _MODELS and "/" in value and not value.endswith(".gguf") and not is_plain_name(value):
            raise SettingsError(
                f"{where}: {key}: {shown(value)} is no plain name of a model, or one whose provider runs what a "
                f"repository holds; if you trust it, give it yourself with --set {key}=..."
            )


def leaves(name: str) -> bool:
    """Whether a file's name leads out of the folder that it is looked for in, on any system.

    Example:
        >>> leaves("nq/train.jsonl"), leaves("../train.jsonl"), leaves("C:/train.jsonl")
        (False, True, True)
    """
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    return bool(windows.drive or windows.root or posix.is_absolute()) or ".." in windows.parts or "\0" in name
