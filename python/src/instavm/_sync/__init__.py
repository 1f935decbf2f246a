"""The blocking face: the asynchronous client, run on an event loop in a thread of its own. A file for each resource."""

from .account import ApiKeys, Audit, Credit, Quotas
from .client import InstaVM
from .exec import Exec
from .files import Files
from .previews import Domains, Shares
from .pty import Pty, Ptys
from .sandboxes import Sandbox, Sandboxes, Snapshots

__all__ = [
    "ApiKeys",
    "Audit",
    "Credit",
    "Domains",
    "Exec",
    "Files",
    "InstaVM",
    "Pty",
    "Ptys",
    "Quotas",
    "Sandbox",
    "Sandboxes",
    "Shares",
    "Snapshots",
]
