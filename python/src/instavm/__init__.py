"""Client of an InstaVM server. `instavm.integrations.openai_agents` is its provider for the OpenAI Agents SDK."""

from ._audit import AsyncAudit, AuditActor, AuditEvent, AuditFilters, AuditPage
from ._client import (
    DEFAULT_BASE_URL,
    AsyncInstaVM,
    AsyncSandbox,
    RunResult,
    SandboxInfo,
    SnapshotInfo,
)
from ._credit import AsyncCredit, Charge, CreditBalance, Rates, Usage, UsageByDay
from ._domains import AsyncDomains, DnsRecord, Domain, DomainHealth
from ._egress import EgressAddress, EgressGap, EgressLogEntry, EgressPolicy, EgressTest
from ._exec import AsyncExec, Command, ExecResult, Output
from ._files import AsyncFiles, ChangeEvent, FileInfo
from ._keys import ApiKey, AsyncApiKeys, KeyScope, NewApiKey
from ._pty import AsyncPtys, PtyInfo
from ._pty_connection import PtyExit, PtyNotice
from ._pty_viewer import AsyncPty
from ._quotas import AccountQuotas, AsyncQuotas, QuotaLimits, QuotaUse
from ._shares import AsyncShares, PreviewAuthority, Share, ShareLink
from ._sync import ApiKeys, Audit, Credit, Domains, Exec, Files, InstaVM, Pty, Ptys, Quotas, Sandbox, Shares
from .errors import InstaVMError

__all__ = [
    "DEFAULT_BASE_URL",
    "AccountQuotas",
    "ApiKey",
    "ApiKeys",
    "AsyncApiKeys",
    "AsyncAudit",
    "AsyncCredit",
    "AsyncDomains",
    "AsyncExec",
    "AsyncFiles",
    "AsyncInstaVM",
    "AsyncPty",
    "AsyncPtys",
    "AsyncQuotas",
    "AsyncSandbox",
    "AsyncShares",
    "Audit",
    "AuditActor",
    "AuditEvent",
    "AuditFilters",
    "AuditPage",
    "ChangeEvent",
    "Charge",
    "Command",
    "Credit",
    "CreditBalance",
    "DnsRecord",
    "Domain",
    "DomainHealth",
    "Domains",
    "EgressAddress",
    "EgressGap",
    "EgressLogEntry",
    "EgressPolicy",
    "EgressTest",
    "Exec",
    "ExecResult",
    "FileInfo",
    "Files",
    "InstaVM",
    "InstaVMError",
    "KeyScope",
    "NewApiKey",
    "Output",
    "PreviewAuthority",
    "Pty",
    "PtyExit",
    "PtyInfo",
    "PtyNotice",
    "Ptys",
    "QuotaLimits",
    "QuotaUse",
    "Quotas",
    "Rates",
    "RunResult",
    "Sandbox",
    "SandboxInfo",
    "Share",
    "ShareLink",
    "Shares",
    "SnapshotInfo",
    "Usage",
    "UsageByDay",
]
