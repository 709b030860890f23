//! How late can this transport have read? A clock that ticks on the runtime that reads.
//!
//! The bytes of a read arrived after the last moment at which all that had arrived was read. A
//! [`Pulse`] looks for such moments: each millisecond it notes the time, has the runtime ask the
//! system what has arrived, and lets the connections and then the readers run. What they did not
//! read then had not arrived at the time noted. A program that is stopped or has no processor
//! misses its ticks, so that the time noted is as old as the delay is long.
//!
//! This holds for a runtime of one thread, which runs tasks in the order in which they were woken
//! and asks the system again when all have run ([`ReqwestPool`](super::pool::ReqwestPool); one request has so
//! few tasks that any does), and for a pulse that is polled after the readers by the same task. A connection that has read
//! several chunks hands them over one by one, so a tick says nothing of a reader that read during
//! it: see [`Reads`].

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use tokio::{task, time};

use crate::now;

/// How often the pulse beats, also while nothing comes: the gap behind a first token is as uncertain
/// as that token. The runtime's timers are up to a millisecond late.
const BEAT: Duration = Duration::from_millis(1);

/// The last moment at which all that had arrived was read.
#[derive(Debug)]
pub(super) struct Pulse(Cell<Instant>);

impl Pulse {
    pub(super) fn new() -> Self {
        Self(Cell::new(now()))
    }

    /// Follows the reads of a stream that begins at `origin`.
    pub(super) fn reads(&self, origin: Instant) -> Reads<'_> {
        Reads { pulse: self, last: origin, since: origin }
    }

    /// Beats until it is dropped.
    pub(super) async fn beat(&self) {
        loop {
            time::sleep(BEAT).await;
            let at = now();
            // The system is asked; then the connections run; then the readers.
            for _ in 0..3 {
                task::yield_now().await;
            }
            self.0.set(at);
        }
    }
}

/// The reads of one stream.
#[derive(Debug)]
pub(super) struct Reads<'a> {
    pulse: &'a Pulse,
    /// When the last one ended.
    last: Instant,
    /// Nothing that it took arrived before this moment.
    since: Instant,
}

impl Reads<'_> {
    /// How long ago, at most, what has just been read arrived.
    pub(super) fn uncertainty(&mut self) -> Duration {
        let (now, beat) = (now(), self.pulse.0.get());
        if beat > self.last {
            self.since = beat;
        }
        self.last = now;
        now.saturating_duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net, thread};

    use futures_util::{StreamExt as _, stream::FuturesUnordered};
    use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::mpsc};

    use super::*;
    use crate::via_reqwest::pool;

    /// More than the tasks that a runtime runs by default before it asks the system again.
    const STREAMS: usize = 256;

    const STOP: Duration = Duration::from_millis(200);

    /// A connection whose other end is served by a task, as hyper does it.
    fn connect(listener: &net::TcpListener) -> (net::TcpStream, mpsc::Receiver<()>) {
        let address = listener.local_addr().expect("a port");
        let server = net::TcpStream::connect(address).expect("a connection");
        let (ours, _) = listener.accept().expect("a connection");
        ours.set_nonblocking(true).expect("a socket");
        let mut ours = TcpStream::from_std(ours).expect("a socket");
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            while ours.read_u8().await.is_ok() && sender.send(()).await.is_ok() {}
        });
        (server, receiver)
    }

    #[test]
    fn what_arrived_while_many_streams_were_stopped_is_within_its_bounds() {
        pool::runtime().expect("a runtime").block_on(async {
            let listener = net::TcpListener::bind("127.0.0.1:0").expect("a port");
            let (mut servers, receivers): (Vec<_>, Vec<_>) =
                (0..STREAMS).map(|_| connect(&listener)).unzip();
            let (pulse, origin) = (Pulse::new(), now());
            let read = |mut receiver: mpsc::Receiver<()>| {
                let mut reads = pulse.reads(origin);
                task::unconstrained(async move {
                    receiver.recv().await;
                    reads.uncertainty();
                    receiver.recv().await;
                    reads.uncertainty()
                })
            };
            let mut readers: FuturesUnordered<_> = receivers.into_iter().map(read).collect();
            let beat = pulse.beat();
            tokio::pin!(beat);
            let send = |servers: &mut Vec<net::TcpStream>| {
                servers.iter_mut().for_each(|server| server.write_all(b"x").expect("a write"));
            };
            send(&mut servers);
            let stop = async {
                time::sleep(4 * BEAT + Duration::from_millis(100)).await;
                // All arrive, and then the program is stopped.
                send(&mut servers);
                thread::sleep(STOP);
            };
            tokio::pin!(stop);
            let (mut stopped, mut read) = (false, 0);
            while read < STREAMS {
                tokio::select! {
                    biased;
                    Some(uncertainty) = readers.next() => {
                        read += 1;
                        assert!(stopped);
                        assert!(uncertainty >= STOP, "{read}: {uncertainty:?}");
                    }
                    () = &mut beat => unreachable!("a pulse does not end"),
                    () = &mut stop, if !stopped => stopped = true,
                }
            }
        });
    }
}
