"""Download a saved program from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from radio_dspy.core.errors import CheckpointError, RadioError, SettingsError
from radio_dspy.core.redaction import cause_of
from radio_dspy.lm.secrets import hiding_secrets


def download(repo_id: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """Fetch a repository into the hub's cache on this machine; what is there already is not fetched again.

    Args:
        repo_id: ``"owner/name"``.
        revision: A branch, tag or commit; None is ``main``.
        token: For a private repository; None takes the one that you are logged in with.

    Returns:
        The folder of that commit.

    Raises:
        CheckpointError: If the hub does not give it, or cannot be reached and the cache does not hold it.
    """
    from httpx import HTTPError
    from huggingface_hub import get_token, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        with hiding_secrets({"token": token or get_token()}):
            return Path(snapshot_download(repo_id, revision=revision, token=token))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, HTTPError) as error:
        raise CheckpointError(
            f"{repo_id}: no such folder on this machine, and the hub does not give a repository of that name "
            f"({type(error).__name__}). Check the name, the revision and the connection; a private repository needs "
            "`hf auth login` or token=."
        ) from cause_of(error)


@contextmanager
def _answers_of_the_hub(repo_id: str) -> Iterator[None]:
    """Turn what the hub's client raises into an error that says what to do."""
    from httpx import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        with hiding_secrets():
            yield
    except HFValidationError as error:
        raise SettingsError(f"{repo_id!r} is no name of a repository ({error}); give 'owner/name'.") from cause_of(
            error
        )
    except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled, RuntimeError) as error:
        said = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise RadioError(
            f"{repo_id}: the hub did not take the program ({said}). A push needs `hf auth login` or token=, with the "
            "right to write to the owner's repositories."
        ) from cause_of(error)
