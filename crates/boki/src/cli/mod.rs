//! The command line: what can be typed, and the help that teaches it. Nothing is done here.

mod bench;
mod client;
mod demo;
mod deploy;
mod doctor;
mod key;
mod limits;
mod logs;
mod retention;
mod server;
mod workers;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use bench::{Bench, BenchOptions, BenchWorker, Format, Language, Workload};
pub(crate) use client::{
    AppendArgs, BookOfLog, BooksCommand, BooksFile, CallArgs, FollowArgs, FunctionsCommand, Input, LogCommand, Promise,
    ReadArgs, TagsArgs, TailArgs, TrimArgs,
};
pub(crate) use demo::DemoArgs;
pub(crate) use deploy::{DeployArgs, Deployer, VersionsCommand};
pub(crate) use doctor::DoctorArgs;
pub(crate) use key::KeyCommand;
pub(crate) use limits::{LimitsCommand, SetLimit};
pub(crate) use logs::LogsArgs;
pub(crate) use retention::{RetentionCommand, SetRetention};
pub(crate) use server::{ConfigCommand, ConfigFile, DEFAULT_FILE, DevArgs, NewArgs, ServerArgs, TestArgs, Time};
pub(crate) use workers::{WorkerExec, WorkersCommand};

/// Where clients look for the server unless told otherwise.
pub(crate) const DEFAULT_SERVER: &str = "127.0.0.1:2654";

/// Runs functions, and gives them one durable, totally ordered log to keep their state in.
#[derive(Debug, Parser)]
#[command(name = "boki", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
A first minute:
  boki new shop && cd shop          a project with one function
  boki dev                          server and your code, reloaded on change
  boki call hello '\"world\"'         in a second terminal

  boki log append --book default --tag greeting 'good morning'
  boki log read   --book default --tag greeting

Exit codes:
  0  done                                3  the server cannot be reached, or did not start
  1  the operation failed                4  a condition did not hold: nothing was appended
  2  wrong usage, input, configuration   5  no such book, record, function or call")]
pub(crate) struct Cli {
    /// Print JSON: one value, or one a line where there are many. Errors too, to standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The server that a command talks to.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// The server: host:port, http://host:port, or unix:/path/to/boki.sock.
    #[arg(long, env = "BOKI_URL", default_value = DEFAULT_SERVER, value_name = "ADDRESS")]
    pub(crate) server: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new project: one file of code, ready for `boki dev`.
    New(NewArgs),
    /// Run a server and your code, and reload the code when it changes.
    Dev(DevArgs),
    /// Run the tests of the project in this folder.
    Test(TestArgs),
    /// Run a server.
    Server(ServerArgs),
    /// Call a function and print what it returns.
    Call(CallArgs),
    /// Append to a book, read it, follow it, trim it.
    #[command(subcommand)]
    Log(LogCommand),
    /// List, make, remove, export and import books.
    #[command(subcommand)]
    Books(BooksCommand),
    /// Show, set and remove what is kept of books.
    #[command(subcommand)]
    Retention(RetentionCommand),
    /// What functions there are.
    #[command(subcommand)]
    Functions(FunctionsCommand),
    /// Send this app to a server, which switches to it once it serves.
    Deploy(DeployArgs),
    /// Look at the versions of apps, go back to one, remove them.
    #[command(subcommand)]
    Versions(VersionsCommand),
    /// The worker processes that a server runs.
    #[command(subcommand)]
    Workers(WorkersCommand),
    /// Print what functions log and what their workers print.
    Logs(LogsArgs),
    /// List, set and remove limits on calls.
    #[command(subcommand)]
    Limits(LimitsCommand),
    /// Check `boki.toml`, and see what it comes to.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make a key that a data directory is encrypted with.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Say what is wrong with a data directory and what that means, and mend what can be mended.
    Doctor(DoctorArgs),
    /// Measure a server, and the machine it runs on.
    Bench(Bench),
    /// Book trips on a real server, kill it twice, and check that nothing was lost or done twice.
    Demo(DemoArgs),
    /// Print what an error code means, and what to do about it.
    #[command(after_help = "Example:\n  boki explain BK0201")]
    Explain {
        /// The code.
        code: String,
    },
    /// Print a script that completes commands in your shell.
    #[command(after_help = "Example:\n  boki completions bash > /etc/bash_completion.d/boki")]
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Send back what arrives (a part of `boki bench`).
    #[command(hide = true)]
    BenchEcho,
    /// Run a function that does nothing (a part of `boki bench`).
    #[command(hide = true)]
    BenchWorker(BenchWorker),
    /// Limit what this process may use, and become a worker (a part of `boki server`).
    #[command(hide = true)]
    WorkerExec(WorkerExec),
    /// Kill workers whose server is gone (a part of `boki server`).
    #[command(hide = true)]
    WorkerGuard,
    /// Run the booking example (a part of `boki demo`).
    #[command(hide = true)]
    DemoWorker,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_of_its_own() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                assert!(sub.get_about().is_some(), "{path} does not say what it does");
                check(sub, &path);
            }
        }
        check(&Cli::command(), "boki");
    }
}
