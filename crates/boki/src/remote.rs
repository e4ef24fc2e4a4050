//! Reaching a server, and what its errors mean to whoever typed the command.

use boki_log::LogError;
use boki_sdk::{Book, Client, ConnectOptions, Error};
use serde_json::{Map, Value};

use crate::cli::{BookOfLog, Target};
use crate::failure::{Exit, Failure};

pub(crate) async fn connect(target: &Target) -> Result<Client, Failure> {
    let options = ConnectOptions::new(&target.server).map_err(|error| of_server(&error, None))?;
    Client::connect_with(options.name("boki")).await.map_err(|error| of_server(&error, None))
}

pub(crate) async fn open(book: &BookOfLog) -> Result<Book, Failure> {
    let client = connect(&book.target).await?;
    client.book(&book.book).await.map_err(|error| of_server(&error, Some(&book.book)))
}

/// What `error` means; `book` is the one that was asked, if any.
pub(crate) fn of_server(error: &Error, book: Option<&str>) -> Failure {
    let code = error.code();
    let fields = match error {
        Error::Log(error) => boki_wire::error::details_of(error),
        Error::Remote { details, .. } => serde_json::from_str(details).unwrap_or_default(),
        _ => Map::new(),
    };
    let next = next_command(error, &fields, book.unwrap_or("default"));
    Failure::new(code, exit_of(code), error.to_string(), next).with_fields(fields)
}

/// What a problem means that a server answered over HTTP.
pub(crate) fn of_problem(status: u16, body: &[u8]) -> Failure {
    let Ok(Value::Object(mut problem)) = serde_json::from_slice(body) else {
        let reason = format!("it has status {status}, and says no more");
        return of_server(&Error::UnexpectedAnswer { reason }, None);
    };
    let mut take = |name: &str| match problem.remove(name) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let (code, what, next) = (take("code"), take("detail"), take("next"));
    for said in ["type", "title", "status", "retry"] {
        problem.remove(said);
    }
    let exit = exit_of(&code);
    Failure::new(code, exit, what, next).with_fields(problem)
}

fn exit_of(code: &str) -> Exit {
    match code {
        "BK0612" | "BK0613" => Exit::Unavailable,
        "BK0201" | "BK0202" => Exit::Condition,
        "BK0110" | "BK0113" | "BK0401" | "BK0409" | "BK0438" | "BK0441" => Exit::NotFound,
        "BK0101" | "BK0102" | "BK0103" | "BK0104" | "BK0105" | "BK0112" | "BK0203" | "BK0411" | "BK0436" | "BK0440"
        | "BK0503" | "BK0504" | "BK0505" | "BK0506" | "BK0611" => Exit::Usage,
        _ => Exit::Failed,
    }
}

fn next_command(error: &Error, fields: &Map<String, Value>, book: &str) -> String {
    let book = shell_word(book);
    if let Error::Log(LogError::ConditionFailed { tag, .. }) = error {
        return format!("boki log read --book {book} --tag {} --prev --limit 1", shell_word(tag.as_str()));
    }
    match error.code() {
        "BK0104" | "BK0408" => "boki config show",
        "BK0110" => {
            let name = fields.get("name").and_then(Value::as_str).unwrap_or("NAME");
            return format!("boki books new {}, or boki books ls", shell_word(name));
        }
        "BK0111" => "boki books ls",
        "BK0113" | "BK0303" => return format!("boki log tail --book {book}"),
        "BK0202" => "stop: a later owner has taken over; take a higher epoch only as the new owner",
        "BK0301" => "df -h, make room, then repeat the command",
        "BK0302" | "BK0307" => "restart the server, then repeat the append with the same --id",
        "BK0304" | "BK0405" => "repeat the command after a pause",
        "BK0305" | "BK0410" => "repeat the command once the server is back",
        "BK0401" => "boki functions ls",
        "BK0402" => "look at the function's message, and at its lines in the server's output",
        "BK0403" => "look at the worker's lines in the server's output, then repeat the call with --key",
        "BK0404" | "BK0615" => "repeat the call with a longer --timeout, or with --detach",
        "BK0407" => "use another --key",
        "BK0611" => "boki --help shows how addresses are written",
        "BK0612" | "BK0613" => "start a server with `boki dev` or `boki server`, or name one with --server or BOKI_URL",
        "BK0614" => "find out whether it was done, then repeat it; a call with --key can be repeated safely",
        code => return format!("boki explain {code}"),
    }
    .to_owned()
}

/// `text` as one word of a shell command.
pub(crate) fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use boki_log::{Seq, Tag};

    use super::*;

    #[test]
    fn the_next_command_can_be_pasted() {
        let tag = Tag::new("it's").unwrap();
        let error = Error::Log(LogError::ConditionFailed { tag, expected: Seq(7), actual: Seq(9) });
        let next = next_command(&error, &Map::new(), "my book");
        assert_eq!(next, r"boki log read --book 'my book' --tag 'it'\''s' --prev --limit 1");
    }
}
