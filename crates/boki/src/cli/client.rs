//! Commands that talk to a server.

use std::path::PathBuf;
use std::time::Duration;

use boki_log::{AppendId, Seq};
use boki_server::config::Span;
use clap::{Args, Subcommand, ValueEnum};

use super::Target;

/// A book of a server.
#[derive(Args, Clone, Debug)]
pub(crate) struct BookOfLog {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The book.
    #[arg(long, short, env = "BOKI_BOOK", default_value = "default")]
    pub(crate) book: String,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  boki call hello '\"world\"'
  boki call checkout '{\"sku\":\"tea\",\"qty\":2}' --key order-17    repeated, it is still one order
  boki call resize - --raw < in.png > out.png                   bytes in, bytes out
  boki call report --detach                                     do not wait; prints the call's id")]
pub(crate) struct CallArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The function.
    pub(crate) function: String,
    /// Its input, as JSON; `-` reads standard input; `null` without.
    pub(crate) input: Option<String>,
    /// Calls of a function with the same key are one call: it runs to its end whatever crashes, and all get its result.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// The book that the function works in.
    #[arg(long, short, env = "BOKI_BOOK", default_value = "default")]
    pub(crate) book: String,
    /// How long to wait for the result: 30s, 2m.
    #[arg(long, value_parser = span)]
    pub(crate) timeout: Option<Duration>,
    /// Put the call on record, so that it runs whatever crashes, and do not wait for it.
    #[arg(long)]
    pub(crate) detach: bool,
    /// The input is bytes, not JSON, and the output is printed as it is, without a line end.
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Append records.
    Append(AppendArgs),
    /// Print records.
    Read(ReadArgs),
    /// Print the seq of the last record; 0 if there is none.
    Tail(TailArgs),
    /// List tags, with the seq of the last record of each.
    Tags(TagsArgs),
    /// Remove records below a seq, of the book or of one tag.
    Trim(TrimArgs),
    /// Print records as they are appended, until ctrl-c.
    Follow(FollowArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Prints the seq of each record. Standard input is read as it comes: what gathers while one append is
under way is the next one. The order of lines is the order of records.

Examples:
  boki log append --book orders --tag user/42 '{\"sku\":\"tea\"}'
  tail -f access.log | boki log append --book web --tag access
  boki log append --book orders --tag user/42 --if-tail user/42=7 'only if 7 is still the last'
  printf 'a\\nb\\n' | boki log append --book orders --batch --if-tail lock=0 --tag lock
  boki --json log read --book a | boki log append --book b --input records")]
pub(crate) struct AppendArgs {
    #[command(flatten)]
    pub(crate) book: BookOfLog,
    /// The payload of one record; without it (or with `-`), standard input is read.
    pub(crate) data: Option<String>,
    /// A tag of every record; may be given several times.
    #[arg(long = "tag", short, value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// What standard input holds.
    #[arg(long, value_enum, default_value_t = Input::Lines)]
    pub(crate) input: Input,
    /// All of standard input is one append: all of its records, or none.
    #[arg(long)]
    pub(crate) batch: bool,
    /// Only if SEQ is the last record of TAG (0: it has none); may be given several times.
    #[arg(long, value_name = "TAG=SEQ", value_parser = tag_and_number)]
    pub(crate) if_tail: Vec<(String, u64)>,
    /// Only if the fence of TAG is at most EPOCH; may be given several times.
    #[arg(long, value_name = "TAG=EPOCH", value_parser = tag_and_number)]
    pub(crate) fence: Vec<(String, u64)>,
    /// Raise the fence of TAG to EPOCH; may be given several times.
    #[arg(long, value_name = "TAG=EPOCH", value_parser = tag_and_number)]
    pub(crate) raise: Vec<(String, u64)>,
    /// Names the append, so that repeating it adds nothing: 32 hexadecimal digits or a UUID.
    #[arg(long, value_parser = append_id)]
    pub(crate) id: Option<AppendId>,
}

impl AppendArgs {
    /// What makes sense only for a single append.
    pub(crate) fn is_single_only(&self) -> bool {
        !self.if_tail.is_empty() || !self.fence.is_empty() || !self.raise.is_empty() || self.id.is_some()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Input {
    /// Each line is the payload of a record.
    Lines,
    /// Each line is a record as `boki --json log read` prints it: tags, and data, text or base64.
    Records,
    /// All of it is the payload of one record.
    Raw,
}

/// What a read is promised.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Promise {
    /// Ask for the end of the log first, so that every append acknowledged before is seen.
    #[arg(long, conflicts_with = "any")]
    pub(crate) linearizable: bool,
    /// Whatever the server has, without waiting.
    #[arg(long)]
    pub(crate) any: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Prints seq, time, tags and payload of each record, separated by tabs; with --raw the payload alone;
with --json one object a line.

Examples:
  boki log read --book orders
  boki log read --book orders --tag user/42 --prev --limit 1       the last one
  boki log read --book orders --from 100 --wait 30s                wait for one")]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    pub(crate) book: BookOfLog,
    /// Only records with this tag.
    #[arg(long, short)]
    pub(crate) tag: Option<String>,
    /// Where to begin: this seq and those after it (with --prev: before it).
    #[arg(long, value_parser = seq)]
    pub(crate) from: Option<Seq>,
    /// Backwards, from the end unless --from says where.
    #[arg(long, conflicts_with = "wait")]
    pub(crate) prev: bool,
    /// At most this many records; all there are, unless given.
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// If nothing matches, wait this long for a record: 30s, 2m.
    #[arg(long, value_parser = span)]
    pub(crate) wait: Option<Duration>,
    #[command(flatten)]
    pub(crate) promise: Promise,
    /// Print payloads only, each as it is and followed by a line end.
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  boki log tail --book orders --tag user/42")]
pub(crate) struct TailArgs {
    #[command(flatten)]
    pub(crate) book: BookOfLog,
    /// Of this tag; of the whole book without it.
    #[arg(long, short)]
    pub(crate) tag: Option<String>,
    #[command(flatten)]
    pub(crate) promise: Promise,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  boki log tags --book orders --prefix user/")]
pub(crate) struct TagsArgs {
    #[command(flatten)]
    pub(crate) book: BookOfLog,
    /// Only tags that begin with this.
    #[arg(long, default_value = "")]
    pub(crate) prefix: String,
    /// At most this many; all there are, unless given.
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  boki log trim --book orders --tag user/42 --below 100
  boki log trim --book orders --below \"$(boki log tail --book orders)\"     all but the last")]
pub(crate) struct TrimArgs {
    #[command(flatten)]
    pub(crate) book: BookOfLog,
    /// Only records of this tag; the whole book without it.
    #[arg(long, short)]
    pub(crate) tag: Option<String>,
    /// The first seq that stays.
    #[arg(long, value_parser = seq)]
    pub(crate) below: Seq,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  boki log follow --book orders
  boki log follow --book orders --tag user/42 --from 1 --raw | while read -r order; do ...; done")]
pub(crate) struct FollowArgs {
    #[command(flatten)]
    pub(crate) book: BookOfLog,
    /// Only records with this tag.
    #[arg(long, short)]
    pub(crate) tag: Option<String>,
    /// Where to begin; after the last record there is, unless given.
    #[arg(long, value_parser = seq)]
    pub(crate) from: Option<Seq>,
    /// End after this many records.
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Print payloads only, each as it is and followed by a line end.
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BooksCommand {
    /// List all books.
    #[command(after_help = "Example:\n  boki books ls")]
    Ls(Target),
    /// Make a book.
    #[command(after_help = "Example:\n  boki books new orders")]
    New {
        #[command(flatten)]
        target: Target,
        /// Its name.
        name: String,
    },
    /// Remove a book and everything in it.
    #[command(after_help = "Example:\n  boki books rm orders --yes")]
    Rm {
        #[command(flatten)]
        target: Target,
        /// Its name.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Write a book to a file: one record a line, as JSON.
    #[command(after_help = "\
What was appended after the export began is not in it. The form is that of `boki --json log read`.

Example:
  boki books export orders orders.jsonl")]
    Export(BooksFile),
    /// Read a book from a file that `boki books export` wrote.
    #[command(after_help = "\
Makes the book if it is missing, and refuses one that has records. Order, tags and payloads are kept; seqs
and times are new. Records of Boki's own libraries (their tags begin with ~) are left out.

Example:
  boki books import orders-copy orders.jsonl")]
    Import(BooksFile),
}

#[derive(Args, Debug)]
pub(crate) struct BooksFile {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The book.
    pub(crate) name: String,
    /// The file; `-`, the default, is standard output or input.
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FunctionsCommand {
    /// List the functions that connected workers offer.
    #[command(after_help = "Example:\n  boki functions ls")]
    Ls(Target),
}

pub(super) fn span(text: &str) -> Result<Duration, String> {
    text.parse::<Span>()
        .map(|span| span.0)
        .map_err(|_| "a duration with a unit is expected, such as 250ms, 30s or 2m".to_owned())
}

fn seq(text: &str) -> Result<Seq, String> {
    match text.parse() {
        Ok(number) if number <= Seq::MAX.0 => Ok(Seq(number)),
        _ => Err(format!("a number from 0 to {} is expected", Seq::MAX)),
    }
}

/// The last `=` divides, since a tag may have one.
fn tag_and_number(text: &str) -> Result<(String, u64), String> {
    let expected = || "a tag, = and a number are expected, such as user/42=7".to_owned();
    let (tag, number) = text.rsplit_once('=').ok_or_else(expected)?;
    Ok((tag.to_owned(), number.parse().map_err(|_| expected())?))
}

fn append_id(text: &str) -> Result<AppendId, String> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err("32 hexadecimal digits or a UUID are expected".to_owned());
    }
    match u128::from_str_radix(&digits, 16) {
        Ok(0) => Err("an id is not all zeros".to_owned()),
        Ok(id) if digits.len() == 32 => Ok(AppendId(id.to_be_bytes())),
        _ => Err("32 hexadecimal digits or a UUID are expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_may_hold_an_equals_sign() {
        assert_eq!(tag_and_number("a=b=7"), Ok(("a=b".to_owned(), 7)));
        assert!(tag_and_number("a").is_err());
        assert!(tag_and_number("a=x").is_err());
    }

    #[test]
    fn an_id_is_hexadecimal_or_a_uuid() {
        let id = AppendId([0x0f; 16]);
        assert_eq!(append_id("0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"), Ok(id));
        assert_eq!(append_id("0f0f0f0f-0f0f-0f0f-0f0f-0f0f0f0f0f0f"), Ok(id));
        for text in ["", "1", "00000000000000000000000000000000", "+f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"] {
            assert!(append_id(text).is_err(), "{text}");
        }
    }
}
