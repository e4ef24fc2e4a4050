//! The app that is deployed. Its worker is this test program itself, and its code is the file `code` in the version's
//! folder: what that says is what its functions answer.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use boki_sdk::{Cx, Failure, Worker};
use tempfile::TempDir;

use crate::process::{Ended, Server, run};

/// Says that this program is to be a worker.
const ROLE: &str = "BOKI_TEST_WORKER";

/// No test: what a worker process runs. Elsewhere it passes at once.
#[test]
fn worker() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let code = std::fs::read_to_string("code").unwrap();
    let answer = code.clone();
    let worker = Worker::new()
        .name("app")
        .function("code", move |_: Cx, (): ()| {
            let answer = answer.clone();
            async move { Ok::<_, Failure>(answer) }
        })
        // Says that it runs, waits until it is let go, and then answers.
        .function("hold", move |_: Cx, gate: PathBuf| {
            let answer = code.clone();
            async move {
                let waited = tokio::task::spawn_blocking(move || wait_at(&gate)).await;
                waited.map_err(|error| Failure::new(error.to_string()))?;
                Ok::<_, Failure>(answer)
            }
        });
    let worker = if Path::new("extra").exists() {
        worker.function("extra", |_: Cx, (): ()| async move { Ok::<_, Failure>(()) })
    } else {
        worker
    };
    worker.run().unwrap();
}

/// A pair of pipes at which a process waits until it is let go.
#[derive(Debug)]
pub(crate) struct Gate {
    folder: TempDir,
    /// Open for both: whoever is let go finds what was written, when it comes to look, and nobody is waited for.
    go: File,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        let folder = tempfile::tempdir().unwrap();
        for name in ["here", "go"] {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, folder.path().join(name), kind, mode, 0).unwrap();
        }
        let go = File::options().read(true).write(true).open(folder.path().join("go")).unwrap();
        Gate { folder, go }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// How a shell waits at it.
    pub(crate) fn shell(&self) -> String {
        let path = self.path().display();
        format!("echo > {path}/here; read line < {path}/go")
    }

    /// Waits until somebody waits there.
    pub(crate) fn wait_for_arrival(&self) {
        File::open(self.path().join("here")).unwrap().read_to_end(&mut Vec::new()).unwrap();
    }

    pub(crate) fn let_go(&self) {
        (&self.go).write_all(b"\n").unwrap();
    }
}

fn wait_at(gate: &Path) {
    File::create(gate.join("here")).unwrap().write_all(b"\n").unwrap();
    File::open(gate.join("go")).unwrap().read_exact(&mut [0]).unwrap();
}

/// An app's folder.
#[derive(Debug)]
pub(crate) struct App(TempDir);

impl App {
    pub(crate) fn new(code: &str) -> App {
        let app = App(tempfile::tempdir().unwrap());
        app.write("code", code);
        app.runs(&command(), "");
        app
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder().join(name), text).unwrap();
    }

    /// What its `boki.toml` says.
    pub(crate) fn runs(&self, command: &str, more: &str) {
        self.write("boki.toml", &format!("[deploy]\napp = \"shop\"\ncommand = '''{command}'''\n{more}"));
    }

    pub(crate) fn deploy(&self, server: &Server) -> Ended {
        run(&mut self.deploying(server))
    }

    /// The command, not run yet.
    pub(crate) fn deploying(&self, server: &Server) -> std::process::Command {
        let mut command = server.boki(&["--json", "deploy", self.folder().to_str().unwrap()]);
        command.args(["--data", data(server).to_str().unwrap()]);
        command
    }
}

/// Starts a worker of the code in the folder that it runs in.
pub(crate) fn command() -> String {
    format!("{ROLE}=1 exec {} deploy::app::worker --exact --nocapture", std::env::current_exe().unwrap().display())
}

pub(crate) fn data(server: &Server) -> PathBuf {
    server.folder.path().join(".boki")
}

/// What the active version answers.
#[track_caller]
pub(crate) fn answer(server: &Server) -> String {
    server.ok(&["call", "code"]).trim().trim_matches('"').to_owned()
}
