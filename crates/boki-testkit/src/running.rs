//! The thread on which the server, the worker and the way between them run, in virtual time.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use boki_node::{Clock, Node};
use boki_sdk::Worker;
use boki_server::{Config, Server, virtual_runtime};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::crash::Crashes;
use crate::link::Link;

/// Requests that may wait for the thread.
const REQUESTS: usize = 64;

/// What is asked of the thread; each is answered when it is done.
pub(crate) enum Request {
    /// Move the time on.
    Advance(Duration, oneshot::Sender<()>),
    /// Wait until so many calls pause before their next attempt.
    Pausing(usize, oneshot::Sender<()>),
    /// Let the worker crash now, and wait until there is a new one.
    CrashWorker(oneshot::Sender<()>),
    /// Let the server crash, and start it anew.
    CrashServer(oneshot::Sender<()>),
    /// End in good order.
    Shutdown(oneshot::Sender<()>),
}

/// What the thread is made of.
pub(crate) struct Setup {
    /// Holds the log; removed with this.
    pub(crate) _folder: TempDir,
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) worker: Worker,
    pub(crate) crashes: Arc<Crashes>,
}

/// Starts the thread. The first answer says where the server listens.
pub(crate) fn start(setup: Setup) -> (mpsc::Sender<Request>, oneshot::Receiver<Result<SocketAddr, String>>) {
    let (requests, asked) = mpsc::channel(REQUESTS);
    let (ready, is_ready) = oneshot::channel();
    let thread = std::thread::Builder::new().name("boki-test".to_owned());
    // A thread that cannot be started drops `ready`, which is noticed.
    let _ = thread.spawn(move || run(setup, asked, ready));
    (requests, is_ready)
}

/// What survives a crash of the server.
struct Remains {
    node: Node,
    /// Told when the server is there again.
    done: oneshot::Sender<()>,
}

fn run(mut setup: Setup, mut asked: mpsc::Receiver<Request>, ready: oneshot::Sender<Result<SocketAddr, String>>) {
    let mut ready = Some(ready);
    let mut remains = None;
    loop {
        let runtime = match virtual_runtime() {
            Ok(runtime) => runtime,
            Err(error) => return tell(&mut ready, Err(format!("no runtime: {error}"))),
        };
        let ended = runtime.block_on(Box::pin(serve(&mut setup, &mut asked, &mut ready, remains.take())));
        // Whatever still runs on it is lost, as in a crash.
        runtime.shutdown_background();
        match ended {
            ControlFlow::Continue(of_crash) => remains = Some(of_crash),
            ControlFlow::Break(()) => return,
        }
    }
}

fn tell(ready: &mut Option<oneshot::Sender<Result<SocketAddr, String>>>, result: Result<SocketAddr, String>) {
    if let Some(ready) = ready.take() {
        // Whoever started it may have gone.
        let _ = ready.send(result);
    }
}

/// One life of the server.
async fn serve(
    setup: &mut Setup,
    asked: &mut mpsc::Receiver<Request>,
    ready: &mut Option<oneshot::Sender<Result<SocketAddr, String>>>,
    remains: Option<Remains>,
) -> ControlFlow<(), Remains> {
    let mut restarted = None;
    if let Some(Remains { node, done }) = remains {
        // Its files are still open, since the process lives on.
        node.shutdown().await;
        restarted = Some(done);
    }
    let started = Box::pin(Server::start_with(setup.config.clone(), setup.clock.clone())).await;
    let server = match started {
        Ok(server) => server,
        Err(error) => {
            tell(ready, Err(format!("the server does not start: {error}")));
            return ControlFlow::Break(());
        }
    };
    // Where it was found once, it is found again.
    setup.config.server.listen = server.local_addr();
    let mut side = match WorkerSide::start(setup, server.local_addr()).await {
        Ok(side) => side,
        Err(error) => {
            tell(ready, Err(format!("the worker cannot be reached: {error}")));
            return ControlFlow::Break(());
        }
    };
    side.is_registered(&server).await;
    tell(ready, Ok(server.local_addr()));
    if let Some(done) = restarted {
        let _ = done.send(());
    }
    loop {
        let request = tokio::select! {
            () = side.link.crashed.notified() => {
                side.restart(&server).await;
                continue;
            }
            request = asked.recv() => request,
        };
        match request {
            // Its owner has dropped it.
            None => return ControlFlow::Break(()),
            Some(Request::Advance(by, done)) => {
                server.advance(by).await;
                let _ = done.send(());
            }
            Some(Request::Pausing(calls, done)) => {
                let mut pausing = server.functions().pausing();
                tokio::spawn(async move {
                    // The functions end only with this runtime.
                    let _ = pausing.wait_for(|pausing| *pausing >= calls).await;
                    let _ = done.send(());
                });
            }
            Some(Request::CrashWorker(done)) => {
                side.link.cut.notify_waiters();
                side.link.crashed.notified().await;
                side.restart(&server).await;
                let _ = done.send(());
            }
            Some(Request::CrashServer(done)) => {
                return ControlFlow::Continue(Remains { node: server.node().clone(), done });
            }
            Some(Request::Shutdown(done)) => {
                side.stop().await;
                Box::pin(server.shutdown()).await;
                let _ = done.send(());
                return ControlFlow::Break(());
            }
        }
    }
}

/// The worker, and its way to the server.
struct WorkerSide {
    worker: Worker,
    link: Arc<Link>,
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<boki_sdk::Result<()>>,
}

impl WorkerSide {
    async fn start(setup: &Setup, server: SocketAddr) -> std::io::Result<WorkerSide> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (worker, link) = (setup.worker.clone(), Link::new(Arc::clone(&setup.crashes)));
        tokio::spawn(Arc::clone(&link).serve(listener, server));
        let (stop, serving) = begin(&worker, address);
        Ok(WorkerSide { worker, link, address, stop, serving })
    }

    /// The connection is cut: an end to what is left of the worker, and a new one.
    async fn restart(&mut self, server: &Server) {
        self.stop().await;
        let mut changes = server.functions().worker_changes();
        // The server has to notice as well, or it would give calls to the one that is gone.
        while !server.functions().workers().is_empty() && changes.changed().await.is_ok() {}
        (self.stop, self.serving) = begin(&self.worker, self.address);
        self.is_registered(server).await;
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        // How it ended is of no use to anybody.
        let _ = (&mut self.serving).await;
    }

    async fn is_registered(&mut self, server: &Server) {
        let mut changes = server.functions().worker_changes();
        while server.functions().workers().is_empty() && !self.serving.is_finished() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

fn begin(worker: &Worker, address: SocketAddr) -> (CancellationToken, JoinHandle<boki_sdk::Result<()>>) {
    let stop = CancellationToken::new();
    let worker = worker.clone().server(address.to_string()).stop_when(stop.clone());
    (stop, tokio::spawn(worker.serve()))
}
