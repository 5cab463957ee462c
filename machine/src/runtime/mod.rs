//! What a machine runs to take jobs: streams in, an application, replies out.
//!
//! The concepts are `seelib`'s. Processor threads await jobs and run them at the same time
//! (`SEElib_StartProcessorThreads`, `SEElib_AwaitJobEx`); each job is answered when it is ready, from whatever thread
//! (`SEElib_ReturnJob`), so that replies come out of order. Here an application is an [`Application`], a job is a [`Job`],
//! and a [`Machine`] is what ties them to streams that speak the SEEJob wire.
//!
//! A machine answers for every job that it takes, once: with the application's reply, with the application's own status,
//! or, where the application dropped the job or died holding it, with `SEEWorldFailed`.

mod job;
mod journal;
mod listener;
mod machine;
mod processors;
mod stream;
mod supervisor;

pub use job::{Job, ReplyTo};
pub use listener::{ListenError, SeejobsListener};
pub use machine::{Machine, MachineConfig, MachineError};
pub use processors::Processors;

/// What a machine runs.
pub trait Application: Send + Sync + 'static {
    /// Takes one job. It is to be answered with [`Job::reply`] or [`Job::fail`], here or later from any thread.
    ///
    /// Called on several threads at once (see [`Processors`]). A panic ends this instance of the application: the machine
    /// makes a new one, and every job that the dead one held is answered with `SEEWorldFailed`.
    fn run(&self, job: Job);
}

impl Application for Box<dyn Application> {
    fn run(&self, job: Job) {
        self.as_ref().run(job);
    }
}
