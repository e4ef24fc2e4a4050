//! A plain HTTP client that notices everything: one connection, one request at a time, no second try.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

pub(crate) struct HttpClient {
    address: String,
    connection: SendRequest<Full<Bytes>>,
}

impl HttpClient {
    pub(crate) async fn connect(address: &str) -> HttpClient {
        let stream = TcpStream::connect(address).await.unwrap();
        let (connection, driver) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver);
        HttpClient { address: address.to_owned(), connection }
    }

    /// One request, one answer: a lost connection fails the test.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.try_ask(method, path, headers, body).await.unwrap()
    }

    /// One request, and its answer, or how the connection broke over it.
    pub(crate) async fn try_ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, hyper::Error> {
        let mut request = Request::builder().method(method).uri(path).header("host", &self.address);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        self.connection.ready().await?;
        let response = self.connection.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answer { status, body })
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of a problem.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_else(|| panic!("not a problem: {self:?}")).to_owned()
    }
}

/// Until all of them are offered by a worker: the server holds calls of functions that a process about to register may
/// bring, so a call of each is all the waiting it takes.
pub(crate) async fn wait_for_functions(address: &str, functions: &[&str]) {
    let mut client = HttpClient::connect(address).await;
    for function in functions {
        let answer = client.ask("POST", &format!("/send/{function}"), &[], "1").await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{function}: {answer:?}");
    }
}
