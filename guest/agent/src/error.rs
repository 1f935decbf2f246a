//! Every refusal of the agent: one stable reason word, one gRPC code, one sentence. docs/reference/agent-errors.md lists them,
//! and a test holds that page and `REASONS` to the same set.

use std::io;

use tonic::{Code, Status, metadata::MetadataValue};

/// The trailer that carries the reason word.
pub const REASON_TRAILER: &str = "instavm-reason";

/// Reason word and gRPC code of everything that can go wrong.
pub const REASONS: &[(&str, Code)] = &[
    ("archive_invalid", Code::InvalidArgument),
    ("archive_limit", Code::ResourceExhausted),
    ("command_not_found", Code::NotFound),
    ("cwd_not_found", Code::NotFound),
    ("exists", Code::AlreadyExists),
    ("group_unknown", Code::NotFound),
    ("invalid_path", Code::InvalidArgument),
    ("invalid_request", Code::InvalidArgument),
    ("io_error", Code::Internal),
    ("is_a_directory", Code::FailedPrecondition),
    ("no_space", Code::ResourceExhausted),
    ("not_a_directory", Code::FailedPrecondition),
    ("not_a_file", Code::FailedPrecondition),
    ("not_empty", Code::FailedPrecondition),
    ("not_found", Code::NotFound),
    ("path_escape", Code::PermissionDenied),
    ("permission_denied", Code::PermissionDenied),
    ("process_limit", Code::ResourceExhausted),
    ("pty_exists", Code::AlreadyExists),
    ("pty_input_full", Code::ResourceExhausted),
    ("pty_not_found", Code::NotFound),
    ("python_unavailable", Code::Unavailable),
    ("too_many_execs", Code::ResourceExhausted),
    ("too_many_links", Code::FailedPrecondition),
    ("too_many_ptys", Code::ResourceExhausted),
    ("too_many_viewers", Code::ResourceExhausted),
    ("user_unknown", Code::NotFound),
    ("watch_limit", Code::ResourceExhausted),
];

/// A refusal: a word of [`REASONS`] and a sentence that names what it was about.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct AgentError {
    pub reason: &'static str,
    pub message: String,
}

pub type Result<T> = std::result::Result<T, AgentError>;

impl AgentError {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(REASONS.iter().any(|(word, _)| *word == reason), "{reason} is not in REASONS");
        Self { reason, message: message.into() }
    }

    /// An error of the kernel about `subject` (a path, mostly).
    pub fn io(subject: impl std::fmt::Display, error: &io::Error) -> Self {
        let reason = match error.raw_os_error() {
            Some(libc::ENOENT) => "not_found",
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => "permission_denied",
            Some(libc::EEXIST) => "exists",
            Some(libc::ENOTDIR) => "not_a_directory",
            Some(libc::EISDIR) => "is_a_directory",
            Some(libc::ENOTEMPTY) => "not_empty",
            Some(libc::ENOSPC | libc::EDQUOT) => "no_space",
            Some(libc::ELOOP) => "too_many_links",
            Some(libc::ENAMETOOLONG | libc::EINVAL) => "invalid_path",
            Some(libc::ENXIO) => "not_a_file",
            _ => "io_error",
        };
        Self::new(reason, format!("{subject}: {error}"))
    }
}

impl From<AgentError> for Status {
    fn from(error: AgentError) -> Self {
        let code = REASONS.iter().find(|(word, _)| *word == error.reason).map_or(Code::Internal, |(_, code)| *code);
        let mut status = Status::new(code, error.message);
        status.metadata_mut().insert(REASON_TRAILER, MetadataValue::from_static(error.reason));
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_page_lists_exactly_these_reasons() {
        let page = include_str!("../../../docs/reference/agent-errors.md");
        let mut listed: Vec<&str> =
            page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        listed.sort_unstable();
        let mut ours: Vec<&str> = REASONS.iter().map(|(word, _)| *word).collect();
        ours.sort_unstable();
        assert_eq!(listed, ours);
    }
}
