//! A server process that a test starts, kills and starts again.
//!
//! Every test that needs one includes this file: not all use all of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio::net::TcpStream;

pub(crate) struct ServerProcess {
    home: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl ServerProcess {
    /// With this `boki.toml`, in an empty folder.
    pub(crate) async fn start(home: &Path, config: &str) -> ServerProcess {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        std::fs::write(home.join("boki.toml"), config).unwrap();
        let mut server = ServerProcess { home: home.to_owned(), port, child: None };
        server.start_again().await;
        server
    }

    /// The numbers of the segment files that there are.
    pub(crate) fn segments(&self) -> Vec<u64> {
        let files = std::fs::read_dir(self.home.join("data/seg")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut numbers: Vec<u64> = names.filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }

    pub(crate) fn tcp(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn unix(&self) -> String {
        format!("unix:{}", self.home.join("data/boki.sock").display())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    fn spawn(&self) -> Child {
        Command::new(env!("CARGO_BIN_EXE_boki"))
            .arg("server")
            .args(["--config".as_ref(), self.home.join("boki.toml").as_os_str()])
            .args(["--listen", &self.tcp()])
            .args(["--data".as_ref(), self.home.join("data").as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Starts it and kills it before it is ready. It listens before it reads its log, so connections can be made
    /// meanwhile: how many says when it is killed.
    pub(crate) async fn start_and_kill_early(&mut self, connections: u32) {
        self.child = Some(self.spawn());
        let mut made = 0;
        while made < connections {
            match TcpStream::connect(self.tcp()).await {
                Ok(_) => made += 1,
                Err(_) => {
                    let ended = self.child.as_mut().unwrap().try_wait().unwrap();
                    assert_eq!(ended, None, "the server ended before it was killed");
                    tokio::task::yield_now().await;
                }
            }
        }
        self.kill().await;
    }

    /// On the same data and address; returns when it answers.
    pub(crate) async fn start_again(&mut self) {
        let mut child = self.spawn();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            // The rest goes nowhere, but must not fill the pipe.
            std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
            line
        });
        assert!(!line.await.unwrap().is_empty(), "the server ended before it was ready");
        self.child = Some(child);
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        tokio::task::spawn_blocking(move || {
            child.kill().unwrap();
            child.wait().unwrap();
        })
        .await
        .unwrap();
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // The test has failed already; nothing of it is to be left.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
