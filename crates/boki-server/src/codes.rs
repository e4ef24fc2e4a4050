//! The error codes, each with its page in `docs/errors/`, compiled in so that a server can explain itself.
//!
//! A page's first line is `# CODE: Title`; the title of a problem comes from there and nowhere else.

pub(crate) const BAD_RESPONSE: &str = "BK0423";
pub(crate) const TIME_IS_REAL: &str = "BK0428";
pub(crate) const NO_ROUTE: &str = "BK0501";
pub(crate) const METHOD_NOT_ALLOWED: &str = "BK0502";
pub(crate) const INVALID_BODY: &str = "BK0503";
pub(crate) const INVALID_QUERY: &str = "BK0504";
pub(crate) const INVALID_HEADER: &str = "BK0505";
pub(crate) const BODY_TOO_LARGE: &str = "BK0506";
pub(crate) const TOO_MANY_CONNECTIONS: &str = "BK0507";
pub(crate) const NOT_READY: &str = "BK0508";
pub(crate) const OTHER_ORIGIN: &str = "BK0509";

/// An error code and its page.
#[derive(Clone, Copy, Debug)]
pub struct ErrorPage {
    /// The code.
    pub code: &'static str,
    /// What happened, why, what to do, and an example, as Markdown.
    pub markdown: &'static str,
}

impl ErrorPage {
    /// What happened, in a few words.
    #[must_use]
    pub fn title(&self) -> &'static str {
        let first = self.markdown.lines().next().unwrap_or_default();
        first.split_once(": ").map_or(first, |(_, title)| title)
    }
}

/// The page of `code`.
#[must_use]
pub fn page(code: &str) -> Option<&'static ErrorPage> {
    PAGES.iter().find(|page| page.code.eq_ignore_ascii_case(code))
}

/// What `code` stands for, in a few words.
pub(crate) fn title(code: &str) -> &'static str {
    page(code).map_or("Error", ErrorPage::title)
}

macro_rules! pages {
    ($($code:ident)*) => {
        /// Every code there is.
        pub const PAGES: &[ErrorPage] = &[$(ErrorPage {
            code: stringify!($code),
            markdown: include_str!(concat!("../../../docs/errors/", stringify!($code), ".md")),
        }),*];
    };
}

pages! {
    BK0101 BK0102 BK0103 BK0104 BK0105 BK0110 BK0111 BK0112 BK0113 BK0114
    BK0201 BK0202 BK0203
    BK0301 BK0302 BK0303 BK0304 BK0305 BK0306 BK0307 BK0311 BK0312 BK0313 BK0314 BK0315 BK0316 BK0317 BK0318 BK0319
    BK0331 BK0332 BK0333
    BK0401 BK0402 BK0403 BK0404 BK0405 BK0406 BK0407 BK0408 BK0409 BK0410 BK0411 BK0412
    BK0413 BK0414 BK0415 BK0417 BK0418
    BK0420 BK0421 BK0422 BK0423 BK0428 BK0429
    BK0430 BK0431 BK0432 BK0433
    BK0435 BK0436 BK0437 BK0438 BK0439
    BK0440 BK0441 BK0442 BK0443
    BK0501 BK0502 BK0503 BK0504 BK0505 BK0506 BK0507 BK0508 BK0509
    BK0520 BK0521 BK0522 BK0523 BK0524 BK0525
    BK0601 BK0602 BK0603 BK0611 BK0612 BK0613 BK0614 BK0615 BK0616 BK0617 BK0618 BK0619 BK0620
    BK0701 BK0702 BK0703 BK0704 BK0705 BK0706 BK0707
}
