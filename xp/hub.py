"""The Hugging Face hub: whether it answers at all, and what is wrong with a repository that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from typing import Literal

from xp.error import nearest

Kind = Literal["dataset", "model"]


@cache
def settle() -> bool:
    """Ask the hub once whether it is there; if not, which is True, tell its libraries that this process is offline.

    They then take what their caches have and fail at once for the rest. Else they ask for half a minute, file by file,
    whatever the caches have.
    """
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)  # Any answer will do.
    except Exception:  # Of an http library that huggingface_hub is free to change.
        import datasets

        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"  # For what is imported later.
        return True
    return False


def fault(kind: Kind, name: str, revision: str | None, error: BaseException) -> tuple[str, str] | None:
    """Which setting is wrong, ``path`` or ``revision``, and why; None where the error is not of the hub's making.

    Args:
        kind: of repository.
        name: its id.
        revision: what was asked for.
        error: as a library raised it.
    """
    from huggingface_hub import constants, errors, get_token

    causes = list(_causes(error))
    text = " ".join(str(error).split())  # datasets loses the cause on its way.
    said = "data set" if kind == "dataset" else "model"

    def is_a(*kinds: type[BaseException]) -> bool:
        return any(isinstance(each, kinds) for each in causes)

    setting, why = "path", ""
    if is_a(errors.GatedRepoError) or "is a gated dataset" in text:
        place = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"
        no_right = f"and your token has no right to it; ask for it at {place}"
        no_token = f"ask for access at {place}, then set HF_TOKEN or do `hf auth login`"
        why = f"this {said} is gated{f', {no_right}' if get_token() else f'; {no_token}'}"
    elif is_a(errors.RevisionNotFoundError):
        setting = "revision"
        why = f"{name} has no such branch, tag or commit.{nearest(str(revision), _revisions(kind, name))}"
    elif is_a(errors.RepositoryNotFoundError) or "doesn't exist on the Hub or" in text:
        private = "and your token opens no private one" if get_token() else "or it is private: set HF_TOKEN"
        why = f"there is no such {said} on the hub, {private}.{_similar(kind, name)}"
    elif is_a(errors.HFValidationError):
        why = "this is no id on the hub, which is <owner>/<name>"
        why += ", and there is no such folder" * (kind == "dataset")  # Of models it is said before.
    elif is_a(errors.OfflineModeIsEnabled, ConnectionError) or (constants.is_offline_mode() and is_a(OSError)):
        forbidden = constants.is_offline_mode() and not settle()
        reason = "HF_HUB_OFFLINE is set" if forbidden else f"no answer from {constants.ENDPOINT}"
        why = f"it is not in the cache, and the hub cannot be reached ({reason})"
    elif is_a(errors.HfHubHTTPError):
        why = f"the hub fails: {text[:200]}"
    return (setting, why) if why else None


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
    listed = HfApi().list_datasets if kind == "dataset" else HfApi().list_models
    try:
        names = [each.id for each in listed(author=owner or None, search=None if owner else short, limit=500)]
    except (OSError, ValueError):
        return ""
    hint = nearest(name, names)
    return hint if hint.startswith(" Did") or len(names) < 10 else ""
