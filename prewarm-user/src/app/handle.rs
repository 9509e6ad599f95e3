//! What the control socket asks, answered by the tasks that know.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{mpsc, oneshot};

use super::{
    core::{HERE, Question},
    numbers::Gauges,
};
use crate::{
    cli::RunArguments,
    control::{Answer, Failure, FailureCode, FlushView, Handle, Request},
    lease::Pool,
    model::{Name, Observation, Seen},
    resolve::answers::Flush,
    telemetry::Clock,
};

/// Answers for the daemon.
pub(super) struct Daemon {
    pub(super) arguments: RunArguments,
    pub(super) questions: mpsc::Sender<Question>,
    pub(super) observations: mpsc::Sender<Observation>,
    pub(super) pool: Pool,
    pub(super) gauges: Arc<Gauges>,
    pub(super) clock: Clock,
    /// The kernel tells of the connections that programs open themselves.
    pub(super) watched: bool,
    pub(super) connects_dropped: AtomicU64,
}

impl Daemon {
    /// Reads the configuration again and hands it to the parts that can change while they run.
    pub(super) async fn reload(&self) -> Result<String, Failure> {
        let config = self.arguments.configuration().map_err(|error| refused(&error.to_string()))?;
        self.gauges.warming.set(&config);
        self.questions.send(Question::Settings(Box::new(config))).await.map_err(|_| stopping())?;
        Ok("the configuration was read again; policy, guard rails, warm requests and new interfaces follow it at once, the rest at the next start"
            .to_owned())
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, Failure> {
        let (to, answer) = oneshot::channel();
        self.questions.send(question(to)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    async fn try_answer(&self, request: Request) -> Result<Answer, Failure> {
        Ok(match request {
            Request::Stats => {
                let numbers = self.ask(Question::Numbers).await?;
                Answer::Stats(Box::new(self.gauges.stats(&numbers)))
            }
            Request::Leases(limit) => {
                let mut leases = self.pool.leases();
                leases.truncate(limit.limit);
                Answer::Leases(leases)
            }
            Request::Names(limit) => Answer::Names(self.ask(|to| Question::Names(limit.limit, to)).await?),
            Request::Predictions(limit) => {
                Answer::Predictions(self.ask(|to| Question::Predictions(limit.limit, to)).await?)
            }
            Request::Origins(limit) => {
                let seen = self.ask(Question::Origins).await?;
                Answer::Origins(self.gauges.origins(seen, limit.limit))
            }
            Request::Explain(request) => {
                let explained = self.ask(|to| Question::Explain(request, to)).await?;
                Answer::Explanation(Box::new(explained.map_err(|error| refused(&error))?))
            }
            Request::Answers(limit) => match &self.gauges.answers {
                Some(answers) => Answer::Answers(answers.list(limit.limit).await),
                None => return Err(refused(NOT_ANSWERING)),
            },
            Request::FlushAnswers(what) => {
                let Some(answers) = &self.gauges.answers else { return Err(refused(NOT_ANSWERING)) };
                let gone = answers.flush(flush(&what)?).await;
                Answer::Done(format!("{gone} answers let go of"))
            }
            Request::Reload => Answer::Done(self.reload().await?),
            Request::Attach { interface } => {
                let done = self.ask(|to| Question::Attach(interface, to)).await?;
                Answer::Done(done.map_err(|error| refused(&error))?)
            }
            Request::Detach { interface } => {
                let done = self.ask(|to| Question::Detach(interface, to)).await?;
                Answer::Done(done.map_err(|error| refused(&error))?)
            }
        })
    }
}

impl Handle for Daemon {
    async fn answer(&self, request: Request) -> Result<Answer, Failure> {
        self.try_answer(request).await
    }

    fn connected(&self, destination: SocketAddr, leased: bool) {
        // A program without a lease goes on to connect by itself, which is seen and must not count twice.
        if self.watched && !leased {
            return;
        }
        let seen = Seen::Connect { destination, leased };
        let observation = Observation { at: self.clock.now(), client: HERE, seen };
        // A program that waits for its connection must not wait for this.
        if self.observations.try_send(observation).is_err() {
            self.connects_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

const NOT_ANSWERING: &str = "the kernel answers nothing (hint: prewarm run --answer ADDRESS@INTERFACE)";

fn flush(what: &FlushView) -> Result<Flush, Failure> {
    let name = |text: &str| text.parse::<Name>().map_err(|error| refused(&format!("{text:?} is no name: {error}")));
    Ok(match what {
        FlushView::Name(text) => Flush::Name(name(text)?),
        FlushView::Zone(text) => Flush::Zone(name(text)?),
        FlushView::All => Flush::All,
    })
}

fn refused(message: &str) -> Failure {
    Failure { code: FailureCode::Refused, message: message.to_owned() }
}

fn stopping() -> Failure {
    Failure { code: FailureCode::Stopping, message: "the daemon is stopping".to_owned() }
}
