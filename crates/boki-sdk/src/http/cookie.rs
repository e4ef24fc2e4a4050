//! Cookies that a response sets.

use std::fmt;
use std::time::Duration;

/// A cookie to be set, by [`Response::cookie`](super::Response::cookie). It is for the whole site, out of reach of the page's scripts
/// and not sent from other sites' pages, unless told otherwise.
#[derive(Clone, Debug)]
pub struct Cookie {
    name: String,
    value: String,
    path: String,
    domain: Option<String>,
    max_age: Option<Duration>,
    is_secure: bool,
    for_scripts: bool,
    same_site: SameSite,
}

/// Whether a cookie comes along when another site's page causes the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Never.
    Strict,
    /// Only when the user goes to this site from there.
    Lax,
    /// Always; browsers want it to be [secure](Cookie::secure).
    None,
}

impl Cookie {
    /// A cookie that is forgotten with the browser's session. The value may have any characters but `;` and control characters:
    /// encode it where it might.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Cookie {
        Cookie {
            name: name.into(),
            value: value.into(),
            path: "/".to_owned(),
            domain: None,
            max_age: None,
            is_secure: false,
            for_scripts: false,
            same_site: SameSite::Lax,
        }
    }

    /// One that makes the browser forget another of this name.
    pub fn removal(name: impl Into<String>) -> Cookie {
        Cookie::new(name, "").max_age(Duration::ZERO)
    }

    /// How long it is kept.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Cookie {
        self.max_age = Some(age);
        self
    }

    /// It is sent only with requests below this path.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Cookie {
        self.path = path.into();
        self
    }

    /// It is sent to the hosts of this domain too.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Cookie {
        self.domain = Some(domain.into());
        self
    }

    /// It is sent over HTTPS only.
    #[must_use]
    pub fn secure(mut self) -> Cookie {
        self.is_secure = true;
        self
    }

    /// The page's scripts can see it.
    #[must_use]
    pub fn for_scripts(mut self) -> Cookie {
        self.for_scripts = true;
        self
    }

    /// When it comes along from other sites.
    #[must_use]
    pub fn same_site(mut self, same_site: SameSite) -> Cookie {
        self.same_site = same_site;
        self
    }
}

impl fmt::Display for Cookie {
    /// The value of a `Set-Cookie` header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}; Path={}", self.name, self.value, self.path)?;
        if let Some(domain) = &self.domain {
            write!(f, "; Domain={domain}")?;
        }
        if let Some(age) = self.max_age {
            write!(f, "; Max-Age={}", age.as_secs())?;
        }
        if self.is_secure {
            f.write_str("; Secure")?;
        }
        if !self.for_scripts {
            f.write_str("; HttpOnly")?;
        }
        write!(f, "; SameSite={:?}", self.same_site)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_there_as_browsers_expect_it() {
        let plain = Cookie::new("session", "abc");
        assert_eq!(plain.to_string(), "session=abc; Path=/; HttpOnly; SameSite=Lax");
        let full = Cookie::new("a", "b")
            .path("/shop")
            .domain("example.com")
            .max_age(Duration::from_secs(60))
            .secure()
            .for_scripts()
            .same_site(SameSite::None);
        assert_eq!(full.to_string(), "a=b; Path=/shop; Domain=example.com; Max-Age=60; Secure; SameSite=None");
        assert!(Cookie::removal("a").to_string().starts_with("a=; Path=/; Max-Age=0;"));
    }
}
