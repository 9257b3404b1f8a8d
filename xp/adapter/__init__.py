"""Adapters as they lie in folders: what one says of itself, checked before it is believed, and put on a network."""

from xp.adapter import experts
from xp.adapter.folder import NETWORK, Folder, configured, is_adapter, kind_of, located, read
from xp.adapter.heads import classes, head_labels
from xp.adapter.loading import explained, put_on, put_on_another
from xp.adapter.merge import Merge, merged
from xp.adapter.several import NEW, Several, activate, active, check_labels, check_name
from xp.adapter.surroundings import surround

__all__ = [
    "NETWORK",
    "NEW",
    "Folder",
    "Merge",
    "Several",
    "activate",
    "active",
    "check_labels",
    "check_name",
    "classes",
    "configured",
    "experts",
    "explained",
    "head_labels",
    "is_adapter",
    "kind_of",
    "located",
    "merged",
    "put_on",
    "put_on_another",
    "read",
    "surround",
]
