//! Running the binary, and a server of it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const BOKI: &str = env!("CARGO_BIN_EXE_boki");

/// The binary, in an environment that sets nothing.
pub(crate) fn boki(arguments: &[&str]) -> Command {
    let mut command = Command::new(BOKI);
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    fn of(output: Output) -> Ended {
        let stderr = String::from_utf8(output.stderr).unwrap();
        Ended { code: output.status.code().unwrap(), stdout: output.stdout, stderr }
    }

    /// That it did what was asked; its output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}", self.stderr);
        String::from_utf8(self.stdout).unwrap()
    }

    /// That it failed in this way, and said so: code, what, and the next step.
    #[track_caller]
    pub(crate) fn failed(self, exit: i32, code: &str) -> String {
        assert_eq!(self.code, exit, "{}", self.stderr);
        assert!(self.stderr.contains(&format!("error {code}: ")), "{}", self.stderr);
        assert!(self.stderr.contains("\n  next: "), "{}", self.stderr);
        self.stderr
    }
}

impl Ended {
    /// As [`Ended::failed`], of a command with `--json`.
    #[track_caller]
    pub(crate) fn failed_json(self, exit: i32, code: &str) -> String {
        assert_eq!(self.code, exit, "{}", self.stderr);
        assert!(self.stderr.contains(&format!("\"code\":\"{code}\"")), "{}", self.stderr);
        self.stderr
    }
}

pub(crate) fn run(command: &mut Command) -> Ended {
    Ended::of(command.output().unwrap())
}

/// Runs it with this on its standard input.
pub(crate) fn run_with(command: &mut Command, input: &[u8]) -> Ended {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // It may end without having read everything.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ended::of(output)
}

/// A command that runs, to talk to line by line.
#[derive(Debug)]
pub(crate) struct Talk {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    /// If the command was made with a pipe for it.
    stderr: Option<BufReader<ChildStderr>>,
}

impl Talk {
    pub(crate) fn start(command: &mut Command) -> Talk {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        let stderr = child.stderr.take().map(BufReader::new);
        Talk { child, stdin, stdout, stderr }
    }

    pub(crate) fn say(&mut self, line: &str) {
        self.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits for its next line; empty at the end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits for a line on standard error that has this in it.
    pub(crate) fn wait_for_error_line(&mut self, part: &str) {
        let stderr = self.stderr.as_mut().unwrap();
        let mut lines = stderr.lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains(part)), "it ended without saying {part:?}");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Goes away from its output, and waits for its end.
    pub(crate) fn hang_up(mut self) -> Ended {
        self.stdout = None;
        let stderr =
            self.child.stderr.take().map(|stderr| std::io::read_to_string(stderr).unwrap()).unwrap_or_default();
        let code = self.child.wait().unwrap().code().unwrap();
        Ended { code, stdout: Vec::new(), stderr }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends its input and waits for its end.
    pub(crate) fn end(&mut self) -> i32 {
        self.stdin = None;
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server process on a free port.
#[derive(Debug)]
pub(crate) struct Server {
    talk: Talk,
    pub(crate) ready: Value,
    pub(crate) folder: TempDir,
}

impl Server {
    pub(crate) fn start() -> Server {
        Server::with_config("")
    }

    /// With these further sections in its `boki.toml`.
    pub(crate) fn with_config(sections: &str) -> Server {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("boki.toml"), sections).unwrap();
        let mut talk = Talk::start(server_in(folder.path()).arg("--json"));
        let ready = serde_json::from_str(&talk.line()).unwrap();
        Server { talk, ready, folder }
    }

    pub(crate) fn address(&self) -> &str {
        self.ready["address"].as_str().unwrap()
    }

    /// A command that talks to this server.
    pub(crate) fn boki(&self, arguments: &[&str]) -> Command {
        let mut command = boki(arguments);
        command.env("BOKI_URL", self.address());
        command
    }

    /// Runs a command that succeeds, and gives its output.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        run(&mut self.boki(arguments)).ok()
    }

    /// Starts another one on the same files, once this one has ended.
    pub(crate) fn start_again(self) -> Server {
        let mut talk = Talk::start(server_in(self.folder.path()).arg("--json"));
        let ready = serde_json::from_str(&talk.line()).unwrap();
        Server { talk, ready, folder: self.folder }
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.talk.kill();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) -> i32 {
        self.talk.signal(Signal::TERM);
        self.talk.end()
    }
}

/// The command of a server whose files are in `folder`.
pub(crate) fn server_in(folder: &Path) -> Command {
    let mut command = boki(&["server", "--listen", "127.0.0.1:0"]);
    command.current_dir(folder).env("BOKI_TELEMETRY__LEVEL", "error");
    command
}

/// Each line of `text` as JSON.
pub(crate) fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
