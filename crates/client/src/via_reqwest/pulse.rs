//! Bounds how late a read through reqwest may be, by a clock that ticks on the reading runtime.
//!
//! The bytes of a read arrived after the last moment at which everything that had arrived was read.
//! A [`Pulse`] creates such moments. Each millisecond it notes the time, makes the runtime poll the
//! system, and lets the connections and then the readers run. Bytes that they do not read in that
//! turn arrived after the noted time. A program that was stopped or got no CPU misses ticks, so the
//! noted time is as old as the delay is long.
//!
//! This holds under two conditions. The runtime has one thread, runs tasks in the order of their
//! wake-ups, and polls the system when all have run; see [`ReqwestPool`](super::pool::ReqwestPool).
//! For a single request any runtime does. And the same task polls the pulse after the readers. A
//! connection that has read several chunks hands them over one by one, so a tick says nothing about
//! a reader that read during it; see [`Reads`].

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use tokio::{task, time};

use crate::now;

/// The interval of the pulse. It is the same before the first token, whose uncertainty counts as much
/// as any. The runtime's timers are up to a millisecond late.
const BEAT: Duration = Duration::from_millis(1);

/// The last moment at which everything that had arrived was read.
#[derive(Debug)]
pub(super) struct Pulse(Cell<Instant>);

impl Pulse {
    pub(super) fn new() -> Self {
        Self(Cell::new(now()))
    }

    /// Creates the bounds for a stream that starts at `origin`.
    pub(super) fn reads(&self, origin: Instant) -> Reads<'_> {
        Reads { pulse: self, last: origin, since: origin }
    }

    /// Beats until it is dropped.
    pub(super) async fn beat(&self) {
        loop {
            time::sleep(BEAT).await;
            let at = now();
            // The runtime polls the system, then runs the connections, then the readers.
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
    /// The end of the last read.
    last: Instant,
    /// The lower bound of its bytes.
    since: Instant,
}

impl Reads<'_> {
    /// The longest time since the arrival of the bytes that were just read.
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

    use futures::{StreamExt as _, stream::FuturesUnordered};
    use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::mpsc};

    use super::*;
    use crate::via_reqwest::pool;

    /// More than the tasks that a default runtime runs before it polls the system again.
    const STREAMS: usize = 256;

    const STOP: Duration = Duration::from_millis(200);

    /// A connection that a task reads, like one of hyper.
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
    fn bytes_that_arrive_while_many_streams_are_stopped_are_within_their_bounds() {
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
                // All bytes arrive, then the program is stopped.
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
