//! An append on its way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use boki_log::op::Appended;

use crate::answer::Answer;
use crate::error::{Error, Result};
use crate::session::Asked;

/// An append that has been sent: the future of its answer. Appends are done in the order in which they were sent on
/// one client, so keeping several of these in flight pipelines.
///
/// # Cancel-safety
/// Dropping it leaves open whether the append is done; it is not repeated after a lost connection any more.
#[must_use = "an append is repeated after a lost connection only while somebody waits for it"]
pub struct InFlight(pub(crate) Asked);

impl Future for InFlight {
    type Output = Result<Appended>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Appended>> {
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll(cx)) {
            Ok(Answer::Appended(appended)) => Ok(appended),
            Ok(_) => Err(Error::unexpected("not one to an append")),
            Err(error) => Err(error),
        })
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InFlight")
    }
}
