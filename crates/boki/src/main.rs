//! The boki binary.

mod bench;
mod books;
mod call;
mod cli;
mod demo;
mod deploy;
mod dev;
mod doctor;
mod failure;
mod http;
mod key;
mod limits;
mod lines;
mod log;
mod logs;
mod new;
mod output;
mod record_form;
mod remote;
mod retention;
mod serve;
mod settings;
mod test;
mod versions;
mod workers;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command, Time};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Memory is taken on one thread and given back on another all the time; see `docs/dependencies.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let is_json = cli.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(is_json),
    }
}

/// What clap has to say: help and versions as they are, errors as JSON if that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    if error.use_stderr() && wants_json {
        let what = error.to_string();
        let what = what.lines().next().unwrap_or_default();
        return Failure::input(what.strip_prefix("error: ").unwrap_or(what), "boki --help").report(true);
    }
    // If it cannot be printed there is nobody to tell.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8))
}

fn run(cli: Cli) -> Result<(), Failure> {
    let out = Output::new(cli.json);
    match cli.command {
        Command::New(args) => new::run(&args, out),
        Command::Test(args) => test::run(&args),
        Command::Config(command) => settings::run(&command, out),
        Command::Key(command) => key::run(&command, out),
        Command::Doctor(args) => on_one_core(doctor::run(args, out)),
        Command::Explain { code } => explain(&code, out),
        Command::Completions { shell } => completions(shell, out),
        Command::WorkerExec(args) => workers::exec(&args),
        Command::BenchEcho => bench::echo(),
        Command::DemoWorker => demo::run_worker(),
        Command::Server(args) => serving(args.time, serve::run(args, out)),
        Command::Dev(args) => serving(args.time, dev::run(args, out)),
        Command::BenchWorker(args) => on_all_cores(bench::worker(args)),
        Command::Bench(args) => on_one_core(bench::run(args, out)),
        Command::Demo(args) => on_all_cores(demo::run(args, out)),
        Command::Call(args) => on_one_core(call::call(args, out)),
        Command::Log(command) => on_one_core(log::run(command, out)),
        Command::Books(command) => on_one_core(books::run(command, out)),
        Command::Deploy(args) => on_one_core(deploy::run(args, out)),
        Command::Versions(command) => on_one_core(versions::run(command, out)),
        Command::Logs(args) => on_one_core(logs::run(args, out)),
        Command::Workers(command) => on_one_core(workers::run(command, out)),
        Command::WorkerGuard => workers::guard(),
        Command::Retention(command) => on_one_core(retention::run(command, out)),
        Command::Limits(command) => on_one_core(limits::run(command, out)),
        Command::Functions(command) => on_one_core(call::functions(command, out)),
    }
}

fn explain(code: &str, mut out: Output) -> Result<(), Failure> {
    let Some(page) = boki_server::page(code) else {
        return Err(Failure::input(format!("there is no error code {code:?}"), "boki explain BK0201"));
    };
    let value = serde_json::json!({ "code": page.code, "title": page.title(), "markdown": page.markdown });
    out.either(&value, || page.markdown.trim_end().to_owned())?;
    out.finish()
}

fn completions(shell: clap_complete::Shell, mut out: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "boki", &mut script);
    out.bytes(&script)?;
    out.finish()
}

/// For a server: one thread per core, or the one thread that virtual time needs.
fn serving(time: Time, command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    match time.virtual_time {
        None => on_all_cores(command),
        Some(_) => block_on(boki_server::virtual_runtime(), command),
    }
}

/// For what serves: one thread per core.
fn on_all_cores(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    block_on(tokio::runtime::Builder::new_multi_thread().enable_all().build(), command)
}

/// For what asks: answers come on the thread that waits for them, so nobody has to be woken.
fn on_one_core(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    block_on(tokio::runtime::Builder::new_current_thread().enable_all().build(), command)
}

fn block_on(
    runtime: std::io::Result<tokio::runtime::Runtime>,
    command: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let runtime = runtime.map_err(|error| Failure::io("cannot start the runtime", &error))?;
    let result = runtime.block_on(Box::pin(command));
    // A thread that reads standard input may wait for a line that never comes.
    runtime.shutdown_background();
    result
}
