"""The Hugging Face hub: whether it answers at all, and what is wrong with a repository that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from typing import Literal

from xp.error import nearest

Kind = Literal["dataset", "model"]


@cache
def settle() -> None:
    """Ask the hub once whether it is there; if not, tell its libraries that this process is offline.

    They then take what their caches have and fail at once for the rest. Else they ask for half a minute, file by file,
    whatever the caches have.
    """
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)  # Any answer will do.
    except Exception:  # Of an http library that huggingface_hub is free to change.
        import datasets

        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"  # For what is imported later.


def fault(kind: Kind, name: str, revision: str | None, error: BaseException) -> tuple[str, str] | None:
    """Which setting is wrong, ``path`` or ``revision``, and why; None where the error is not of the hub's making.

    Args:
        kind: of repository.
        name: its id.
        revision: what was asked for.
        error: as a library raised it.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import GatedRepoError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
    from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

    causes = list(_causes(error))
    text = str(error)  # datasets loses the cause on its way.
    said = "data set" if kind == "dataset" else "model"

    def any_is(*kinds: type[BaseException]) -> bool:
        return any(isinstance(each, kinds) for each in causes)

    if any_is(GatedRepoError) or "is a gated dataset" in text:
        place = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if get_token():
            return "path", f"this {said} is gated, and your token has no right to it; ask for it at {place}"
        return "path", f"this {said} is gated; ask for access at {place}, then set HF_TOKEN or do `hf auth login`"
    if any_is(RevisionNotFoundError):
        return "revision", f"{name} has no such branch, tag or commit.{nearest(str(revision), _revisions(kind, name))}"
    if any_is(RepositoryNotFoundError) or "doesn't exist on the Hub or" in text:
        own = "and your token opens no private one" if get_token() else "or it is private: set HF_TOKEN"
        return "path", f"there is no such {said} on the hub, {own}.{_similar(kind, name)}"
    if any_is(HFValidationError):
        return "path", "this is no id on the hub, which is <owner>/<name>, and there is no such folder"
    if any_is(OfflineModeIsEnabled, ConnectionError) or (constants.is_offline_mode() and any_is(OSError)):
        return (
            "path",
            f"it is not in the cache, and the hub cannot be reached ({constants.ENDPOINT}, or HF_HUB_OFFLINE)",
        )
    if any_is(HfHubHTTPError):
        return "path", f"the hub fails: {' '.join(text.split())[:200]}"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _revisions(kind: Kind, name: str) -> list[str]:
    """Branches and tags of a repository; none where they cannot be had."""
    from huggingface_hub import HfApi

    try:
        found = HfApi().list_repo_refs(name, repo_type=kind)
    except (OSError, ValueError):
        return []
    return [each.name for each in (*found.branches, *found.tags)] + [each.ref for each in found.converts]


def _similar(kind: Kind, name: str) -> str:
    """The hint at an id that is much like this one: of the same owner, or, without one, with the name in it."""
    from huggingface_hub import HfApi

    owner, _, short = name.rpartition("/")
    wanted = {"author": owner} if owner else {"search": short}
    listed = HfApi().list_datasets if kind == "dataset" else HfApi().list_models
    try:
        names = [each.id for each in listed(**wanted, limit=500)]
    except (OSError, ValueError):
        return ""
    hint = nearest(name, names)
    return hint if hint.startswith(" Did") or len(names) < 10 else ""
