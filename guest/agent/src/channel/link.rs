//! Why a call has lost its reader: the host cancelled it, or the host itself has gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The connection that a call came over; in the extensions of its request. A connection that breaks, because the daemon died or the
/// microVM was suspended, says nothing about what its calls had started.
#[derive(Clone, Default)]
pub struct HostLink {
    lost: Arc<AtomicBool>,
    cancelled: Arc<AtomicBool>,
}

impl HostLink {
    /// True before any call of the connection notices; never of a call that the host cancelled before.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst) && !self.cancelled.load(Ordering::SeqCst)
    }

    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::SeqCst);
    }

    /// Of one call more.
    pub(super) fn of_call(&self) -> Self {
        Self { lost: self.lost.clone(), cancelled: Arc::default() }
    }

    /// To be called before what carries the call is dropped.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    /// A call that came over no connection has one that is never lost.
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_default()
    }
}
