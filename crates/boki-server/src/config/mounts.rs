//! `[[mount]]`: functions that answer HTTP requests below a path.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the server itself answers: the first segments of its paths. A mount never takes any of them away.
pub const RESERVED: &[&str] =
    &["v1", "call", "send", "healthz", "readyz", "metrics", "errors", "openapi.json", "console"];

/// A path below which a function answers all HTTP requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MountSection {
    /// The path: "/shop"; "/" is everything that the server does not answer itself. The longest one that fits a request counts.
    pub path: String,
    /// The function that answers. It sees the rest of the path.
    pub function: String,
    /// The methods that it takes; all unless set. With GET goes HEAD.
    #[serde(default)]
    pub methods: Vec<String>,
    /// The book that it works in.
    #[serde(default = "default_book")]
    pub book: String,
    /// Origins whose web pages may use it, "https://app.example", or ["*"] for all. Unless set, the function sees to that
    /// itself.
    #[serde(default)]
    pub origins: Vec<String>,
}

fn default_book() -> String {
    "default".to_owned()
}

/// The first key with a value that cannot be used, and why.
pub(super) fn check(mounts: &[MountSection]) -> Result<(), (&'static str, String)> {
    for (at, mount) in mounts.iter().enumerate() {
        check_path(&mount.path).map_err(|reason| ("mount.path", reason))?;
        if mounts.iter().take(at).any(|other| other.path == mount.path) {
            return Err(("mount.path", format!("{:?} is mounted twice", mount.path)));
        }
        if mount.function.is_empty() || mount.function.len() > 255 {
            return Err(("mount.function", "the name of a function has 1 to 255 bytes".to_owned()));
        }
        for method in &mount.methods {
            if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
                return Err(("mount.methods", format!("{method:?} is not a method, such as \"GET\"")));
            }
        }
        if mount.book.is_empty() {
            return Err(("mount.book", "it is empty".to_owned()));
        }
        for origin in &mount.origins {
            if origin == "*" && mount.origins.len() > 1 {
                return Err(("mount.origins", "\"*\" stands alone".to_owned()));
            }
            if origin != "*" && !is_origin(origin) {
                let reason = format!("{origin:?} is not an origin, such as \"https://app.example\", nor \"*\"");
                return Err(("mount.origins", reason));
            }
        }
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), String> {
    let Some(below) = path.strip_prefix('/') else {
        return Err(format!("{path:?} must begin with a slash"));
    };
    if below.is_empty() {
        return Ok(());
    }
    let is_plain = |segment: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(plain)
    };
    if !below.split('/').all(is_plain) {
        return Err(format!(
            "{path:?} must be segments of letters, digits and \"-._~\", with a slash in front of each and none at the end"
        ));
    }
    let first = below.split('/').next().unwrap_or_default();
    if RESERVED.contains(&first) {
        return Err(format!("/{first} is the server's own; it also has: /{}", RESERVED.join(", /")));
    }
    Ok(())
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let word = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    word(scheme, b"+-.") && word(authority, b"-.:[]")
}
