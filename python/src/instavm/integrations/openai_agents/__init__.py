"""Sandbox provider for the OpenAI Agents SDK (`pip install "instavm[agents]"`)."""

from .client import InstaVMSandboxClient
from .options import InstaVMSandboxClientOptions, InstaVMSandboxSessionState
from .session import InstaVMSandboxSession

__all__ = [
    "InstaVMSandboxClient",
    "InstaVMSandboxClientOptions",
    "InstaVMSandboxSession",
    "InstaVMSandboxSessionState",
]
