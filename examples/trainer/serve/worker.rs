//! The thread of the decisions, and what handlers see of it.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};
use phalanx::gpu::Gpu;
use serde::Serialize;
use tokio::sync::{Notify, broadcast, oneshot};

use super::metrics::Metrics;
use crate::live::DeskArgs;
use crate::live::bars::{Assembly, Message};
use crate::live::desk::{Desk, Fatal, Reply};

/// Bars that may wait for their decision.
const QUEUE: usize = 256;

/// Decisions that a slow page may lag behind before it loses some.
const EVENTS: usize = 64;

/// Decisions that a page shows.
const SHOWN: usize = 200;

/// The answer to a message.
pub enum Answer {
    /// An answer for every bar that the message closed.
    Decided(Vec<Result<Reply, String>>),
    Refused(String),
    /// The queue is full.
    Busy,
    Ended,
}

struct Request {
    message: Box<Message>,
    arrived: Instant,
    reply: oneshot::Sender<Answer>,
}

/// The contents of a page.
#[derive(Clone, Default, Serialize)]
pub struct View {
    pub symbols: Vec<String>,
    pub bars_missing: usize,
    pub decisions: u64,
    pub violations: u64,
    pub limit_ms: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub last: Option<Reply>,
    /// The latest decisions, oldest first.
    pub recent: VecDeque<Reply>,
}

/// The side of the handlers.
pub struct Server {
    queue: Mutex<Option<SyncSender<Request>>>,
    view: Arc<Mutex<View>>,
    events: broadcast::Sender<Arc<str>>,
    metrics: Metrics,
    ended: Arc<Notify>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// Opens the model and starts the thread, which returns a summary when it ends.
    pub fn start(
        args: &DeskArgs,
        open: impl Fn() -> phalanx::Result<Gpu>,
    ) -> Result<(Self, JoinHandle<Result<String>>)> {
        let device = std::cell::OnceCell::new();
        let opened = || {
            let gpu = open()?;
            let _ = device.set(gpu.clone());
            Ok(gpu)
        };
        let (desk, resumed) = Desk::open(args, opened)?;
        let (queue, requests) = sync_channel(QUEUE);
        let (events, _) = broadcast::channel(EVENTS);
        let metrics = Metrics::new(desk.symbols(), device.into_inner());
        if let Some(decided) = resumed.as_ref().and_then(|reply| reply.decided.as_ref()) {
            metrics.set(decided);
        }
        let view = Arc::new(Mutex::new(View {
            symbols: desk.symbols().to_vec(),
            bars_missing: desk.bars_missing(),
            limit_ms: desk.latency.limit().as_secs_f64() * 1e3,
            last: resumed,
            ..View::default()
        }));
        let ended = Arc::new(Notify::new());
        let worker = Worker {
            assembly: Assembly::new(desk.symbols(), desk.needs_volume()),
            desk,
            view: view.clone(),
            events: events.clone(),
            metrics: metrics.clone(),
        };
        let over = Ended(ended.clone());
        let work = move || {
            let _over = over;
            worker.run(&requests)
        };
        let thread =
            std::thread::Builder::new().spawn(work).context("starting the thread of the decisions")?;
        Ok((Self { queue: Mutex::new(Some(queue)), view, events, metrics, ended }, thread))
    }

    /// Waits for the decision on a message.
    pub async fn ask(&self, message: Message) -> Answer {
        let (reply, answer) = oneshot::channel();
        let request = Request { message: Box::new(message), arrived: Instant::now(), reply };
        match lock(&self.queue).as_ref().map(|queue| queue.try_send(request)) {
            Some(Ok(())) => {}
            Some(Err(TrySendError::Full(_))) => return Answer::Busy,
            Some(Err(TrySendError::Disconnected(_))) | None => return Answer::Ended,
        }
        answer.await.unwrap_or(Answer::Ended)
    }

    pub fn view(&self) -> View {
        lock(&self.view).clone()
    }

    pub fn events(&self) -> broadcast::Receiver<Arc<str>> {
        self.events.subscribe()
    }

    pub fn metrics(&self) -> Result<String> {
        self.metrics.text()
    }

    /// Ends the thread after the bars that wait.
    pub fn stop(&self) {
        lock(&self.queue).take();
    }

    /// Resolves when the thread has ended by itself, after an error of the device.
    pub fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let ended = self.ended.clone();
        async move { ended.notified().await }
    }
}

/// Tells the server that the thread is over, however it ends.
struct Ended(Arc<Notify>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

struct Worker {
    desk: Desk,
    assembly: Assembly,
    view: Arc<Mutex<View>>,
    events: broadcast::Sender<Arc<str>>,
    metrics: Metrics,
}

impl Worker {
    fn run(mut self, requests: &Receiver<Request>) -> Result<String> {
        for Request { message, arrived, reply } in requests {
            let answer = match self.decide(*message, arrived) {
                Ok(replies) => Answer::Decided(replies),
                Err(error) => {
                    if error.is::<Fatal>() {
                        let _ = reply.send(Answer::Refused(format!("{error:#}")));
                        return Err(error);
                    }
                    self.metrics.refused();
                    Answer::Refused(format!("{error:#}"))
                }
            };
            // The client may have gone.
            let _ = reply.send(answer);
            self.desk.pass_on();
        }
        self.desk.finish()?;
        Ok(self.desk.summary())
    }

    fn decide(&mut self, message: Message, arrived: Instant) -> Result<Vec<Result<Reply, String>>> {
        let mut replies = Vec::new();
        for bar in self.assembly.add(message, self.desk.last())? {
            replies.push(match self.desk.decide(bar, arrived) {
                Ok(reply) => {
                    self.show(&reply);
                    Ok(reply)
                }
                Err(error) if error.is::<Fatal>() => return Err(error),
                Err(error) => {
                    self.metrics.refused();
                    Err(format!("{error:#}"))
                }
            });
        }
        Ok(replies)
    }

    fn show(&self, reply: &Reply) {
        let latency = &self.desk.latency;
        self.metrics.record(reply, latency.violations);
        let mut view = lock(&self.view);
        let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
        view.bars_missing = self.desk.bars_missing();
        view.decisions = latency.decisions();
        view.violations = latency.violations;
        if latency.decisions() > 0 {
            [view.p50_ms, view.p99_ms] = [0.5, 0.99].map(|quantile| ms(latency.quantile(quantile)));
            view.max_ms = ms(latency.max());
        }
        view.last = Some(reply.clone());
        view.recent.push_back(reply.clone());
        if view.recent.len() > SHOWN {
            view.recent.pop_front();
        }
        // Of the latest decisions only the last is new to the page.
        let event = View { recent: [reply.clone()].into(), ..view.clone() };
        drop(view);
        if let Ok(text) = serde_json::to_string(&event) {
            // Without a page nobody listens.
            let _ = self.events.send(text.into());
        }
    }
}
