//! One gRPC call between its HTTP/2 stream and the services: bodies in both directions, each read only as fast as the other takes it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use tonic::codegen::Service;
use tonic::service::Routes;

use super::link::HostLink;

/// Ends with the call. A call that the host resets, or whose connection breaks, is dropped where it waits.
pub async fn serve(mut routes: Routes, link: HostLink, request: Request<RecvStream>, mut answer: SendResponse<Bytes>) {
    let link = link.of_call();
    let mut request = request.map(|stream| RequestBody { stream, data_done: false });
    request.extensions_mut().insert(link.clone());
    let traced = Traced::of(request.headers());
    let response = tokio::select! {
        biased;
        response = async {
            poll_fn(|context| Service::<Request<RequestBody>>::poll_ready(&mut routes, context)).await?;
            routes.call(request).await
        } => response,
        _ = poll_fn(|context| answer.poll_reset(context)) => return,
    };
    let (mut head, body) = match response {
        Ok(response) => response.into_parts(),
        Err(impossible) => match impossible {},
    };
    let is_over = body.is_end_stream();
    if is_over {
        traced.tell(&mut head.headers);
    }
    let mut body = pin!(body);
    match answer.send_response(Response::from_parts(head, ()), is_over) {
        Ok(mut stream) if !is_over => {
            if send(body.as_mut(), &mut stream, traced).await.is_err() && is_reset(|context| stream.poll_reset(context))
            {
                link.cancel();
            }
        }
        Ok(_) => {}
        // The host wants no answer.
        Err(_) if is_reset(|context| answer.poll_reset(context)) => link.cancel(),
        Err(_) => {}
    }
}

/// Whether the host has reset the stream, as opposed to its having been lost with the connection.
fn is_reset(mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<Reason, h2::Error>>) -> bool {
    matches!(poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(_)))
}

/// Fails when the host wants no more.
async fn send(
    mut body: Pin<&mut tonic::body::Body>,
    stream: &mut SendStream<Bytes>,
    traced: Traced,
) -> Result<(), h2::Error> {
    loop {
        let frame = tokio::select! {
            biased;
            reason = poll_fn(|context| stream.poll_reset(context)) => return Err(reason?.into()),
            frame = poll_fn(|context| body.as_mut().poll_frame(context)) => frame,
        };
        let Some(frame) = frame else { return stream.send_data(Bytes::new(), true) };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                eprintln!("instavm-agent: an answer broke off: {error}");
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
        };
        match frame.into_data() {
            Ok(data) => {
                let is_last = body.is_end_stream();
                if !data.is_empty() {
                    // One byte: what calls that wait reserve would be missing elsewhere.
                    stream.reserve_capacity(1);
                    while stream.capacity() == 0 {
                        poll_fn(|context| stream.poll_capacity(context)).await.ok_or(Reason::CANCEL)??;
                    }
                }
                stream.send_data(data, is_last)?;
                if is_last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(mut trailers) = frame.into_trailers() {
                    traced.tell(&mut trailers);
                    stream.reserve_capacity(0);
                    return stream.send_trailers(trailers);
                }
            }
        }
    }
}

/// A call of a trace (W3C Trace Context): with the last of its answer it says how long it was here, from which the host makes the span. The
/// guest exports nothing, and says nothing where nobody traces.
struct Traced(Option<Instant>);

impl Traced {
    fn of(headers: &HeaderMap) -> Self {
        Self(headers.contains_key("traceparent").then(Instant::now))
    }

    /// Milliseconds, as in Server Timing.
    fn tell(&self, headers: &mut HeaderMap) {
        let Some(began) = self.0 else { return };
        let value = format!("agent;dur={:.3}", began.elapsed().as_secs_f64() * 1e3);
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert("server-timing", value);
        }
    }
}

struct RequestBody {
    stream: RecvStream,
    data_done: bool,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_done {
            match ready!(self.stream.poll_data(context)) {
                Some(Ok(data)) => {
                    let released = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(released.map(|()| Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(unless_over(error).map(Err)),
                None => self.data_done = true,
            }
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(context)) {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => unless_over(error).map(Err),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

/// The host wants no more of an answer that it has, which is no failure (RFC 9113 §8.1).
fn unless_over(error: h2::Error) -> Option<h2::Error> {
    (error.reason() != Some(Reason::NO_ERROR)).then_some(error)
}
