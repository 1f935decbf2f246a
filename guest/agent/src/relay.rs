//! Carries one flow between a program's connection and a stream to the host: half-close and reset in both directions, each side read only
//! as fast as the other takes it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// A flow reads in pieces between these, larger as long as it fills them: an idle one holds none, a busy one few.
const LEAST_READ: usize = 4 * 1024;
const MOST_READ: usize = 64 * 1024;
/// One call takes so much, in so many pieces.
const MOST_WRITTEN: usize = 256 * 1024;
const MOST_PIECES: usize = 64;
const LINGER: Duration = Duration::from_secs(5);

/// The stream of a flow that both sides have agreed to.
pub struct Flow {
    pub to_host: SendStream<Bytes>,
    pub from_host: RecvStream,
}

/// Ends when both directions have ended. When either breaks, both ends are reset.
pub async fn relay(mut program: TcpStream, mut flow: Flow) {
    let (mut from_program, mut to_program) = program.split();
    let (downloaded, said_all, given_all) = (Notify::new(), Notify::new(), Notify::new());
    let (mut unsent, is_deaf) = (Unsent::default(), AtomicBool::new(false));
    let up = async {
        let ended = async {
            upload(&mut from_program, &mut flow.to_host, &mut unsent, &is_deaf).await?;
            said_all.notify_one();
            // A program that has said all and takes nothing any more must not keep a stream whose host gave up, or went away.
            tokio::select! {
                () = downloaded.notified() => Ok(()),
                error = broken(&mut flow.to_host) => Err(error),
            }
        }
        .await;
        if ended.is_err() && is_broken(&mut flow.to_host) {
            // What the host had sent before is for the program yet.
            drop(timeout(LINGER, given_all.notified()).await);
        }
        ended
    };
    let down = async {
        let ended = download(&mut flow.from_host, &mut to_program).await;
        given_all.notify_one();
        if ended.is_err() {
            // A program that takes no more, as one that answers before it was asked all, may have said something that was not read yet.
            is_deaf.store(true, Ordering::Relaxed);
            drop(timeout(LINGER, said_all.notified()).await);
        }
        downloaded.notify_one();
        ended
    };
    let ended: io::Result<_> = async { tokio::try_join!(up, down) }.await;
    if ended.is_err() {
        // A reset overtakes what waits for its turn.
        drop(timeout(LINGER, unsent.sent()).await);
        flow.to_host.send_reset(Reason::CANCEL);
        reset(program);
    }
}

/// What the program has said and the connection to the host has not taken yet.
#[derive(Default)]
struct Unsent {
    /// Ends with the last piece, which goes when it is sent.
    last: Option<oneshot::Receiver<()>>,
}

struct Piece {
    bytes: BytesMut,
    _sent: oneshot::Sender<()>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Unsent {
    fn add(&mut self, bytes: BytesMut) -> Bytes {
        let (sender, receiver) = oneshot::channel();
        self.last = Some(receiver);
        Bytes::from_owner(Piece { bytes, _sent: sender })
    }

    async fn sent(self) {
        if let Some(last) = self.last {
            drop(last.await);
        }
    }
}

/// Closes so that the program's next call fails with `ECONNRESET`.
pub fn reset(program: TcpStream) {
    // A connection that has ended already needs no reset.
    let _ = program.set_zero_linger();
}

async fn download(from_host: &mut RecvStream, program: &mut WriteHalf<'_>) -> io::Result<()> {
    let mut pieces = Vec::new();
    let (mut over, mut broken) = (false, Ok(()));
    while !over {
        let mut size = 0;
        let mut next = from_host.data().await;
        // A frame has 16 KiB at most; what else is there already goes in the same call.
        loop {
            match next {
                // The gateway has ended its side and wants no more of ours (RFC 9113 §8.1).
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => over = true,
                None => over = true,
                Some(Err(error)) => (over, broken) = (true, Err(io::Error::other(error))),
                Some(Ok(piece)) => {
                    size += piece.len();
                    pieces.push(piece);
                }
            }
            if over || size >= MOST_WRITTEN || pieces.len() == MOST_PIECES {
                break;
            }
            match poll_fn(|context| Poll::Ready(from_host.poll_data(context))).await {
                Poll::Ready(ready) => next = ready,
                Poll::Pending => break,
            }
        }
        write_all(program, &pieces).await?;
        pieces.clear();
        std::mem::replace(&mut broken, Ok(()))?;
        from_host.flow_control().release_capacity(size).map_err(io::Error::other)?;
    }
    program.shutdown().await
}

async fn write_all(program: &mut WriteHalf<'_>, pieces: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut left = &mut slices[..];
    // Pieces without a byte are nothing to write.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match program.write_vectored(left).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => IoSlice::advance_slices(&mut left, count),
        }
    }
    Ok(())
}

async fn upload(
    program: &mut ReadHalf<'_>,
    to_host: &mut SendStream<Bytes>,
    unsent: &mut Unsent,
    is_deaf: &AtomicBool,
) -> io::Result<()> {
    let mut size = LEAST_READ;
    loop {
        tokio::select! {
            biased;
            reason = poll_fn(|context| to_host.poll_reset(context)) => return match reason.map_err(io::Error::other)? {
                Reason::NO_ERROR => discard(program).await,
                _ => Err(io::ErrorKind::ConnectionReset.into()),
            },
            ready = program.readable() => ready?,
        }
        // Only now: what idle flows reserve would be missing elsewhere.
        to_host.reserve_capacity(size);
        // It tells only of more capacity, not of what is there; nothing comes of a stream that was reset, as the next turn will see.
        while to_host.capacity() == 0 {
            match poll_fn(|context| to_host.poll_capacity(context)).await {
                Some(more) => drop(more.map_err(io::Error::other)?),
                None => break,
            }
        }
        let mut piece = BytesMut::with_capacity(to_host.capacity().min(size));
        if piece.capacity() == 0 {
            continue;
        }
        let is_last = match program.try_read_buf(&mut piece) {
            // The end of a connection whose reset went to the writing side.
            Ok(0) if is_deaf.load(Ordering::Relaxed) => return Err(io::ErrorKind::ConnectionReset.into()),
            Ok(0) => true,
            Ok(count) => {
                if count == size {
                    size = (size * 2).min(MOST_READ);
                } else if count < size / 4 {
                    size = (size / 2).max(LEAST_READ);
                }
                false
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                to_host.reserve_capacity(0);
                continue;
            }
            Err(error) => return Err(error),
        };
        match to_host.send_data(unsent.add(piece), is_last) {
            Ok(()) if is_last => return Ok(()),
            // An error: reset meanwhile, as the next turn will see.
            _ => {}
        }
    }
}

/// Returns when the host resets the stream or the connection is lost.
async fn broken(stream: &mut SendStream<Bytes>) -> io::Error {
    match poll_fn(|context| stream.poll_reset(context)).await {
        // What the host had sent before is still to be delivered.
        Ok(Reason::NO_ERROR) => std::future::pending().await,
        Ok(_) => io::ErrorKind::ConnectionReset.into(),
        Err(error) => io::Error::other(error),
    }
}

fn is_broken(stream: &mut SendStream<Bytes>) -> bool {
    stream.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// Takes what the program still sends, for a while: closing before that would reset a connection whose last bytes it has not read yet.
async fn discard(program: &mut ReadHalf<'_>) -> io::Result<()> {
    let mut scrap = vec![0; LEAST_READ];
    let to_the_end = async {
        while program.read(&mut scrap).await? > 0 {}
        Ok(())
    };
    timeout(LINGER, to_the_end).await.unwrap_or(Ok(()))
}
