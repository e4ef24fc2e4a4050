//! What stands in the parentheses of an attribute.

use proc_macro2::TokenStream;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::{LitInt, LitStr};

/// The options of a function.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: Option<String>,
    /// 0: the engine's default.
    pub(crate) timeout_ms: u32,
    /// 0: the engine's default.
    pub(crate) max_attempts: u32,
    /// It answers HTTP requests.
    pub(crate) http: bool,
}

impl Options {
    pub(crate) fn parse(tokens: TokenStream) -> syn::Result<Options> {
        let mut options = Options::default();
        let parser = syn::meta::parser(|meta| options.take(&meta));
        parser.parse2(tokens)?;
        Ok(options)
    }

    fn take(&mut self, meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
        if meta.path.is_ident("name") {
            let text: LitStr = meta.value()?.parse()?;
            let name = text.value();
            if name.is_empty() || name.len() > 255 {
                return Err(syn::Error::new(text.span(), "a function's name has 1 to 255 bytes"));
            }
            self.name = Some(name);
        } else if meta.path.is_ident("timeout") {
            let text: LitStr = meta.value()?.parse()?;
            let expected = "a duration with a unit is expected, from 1ms to 1000h: \"30s\", \"500ms\", \"2m\", \"1h\"";
            self.timeout_ms = millis(&text.value()).ok_or_else(|| syn::Error::new(text.span(), expected))?;
        } else if meta.path.is_ident("retries") {
            let number: LitInt = meta.value()?.parse()?;
            self.max_attempts = number.base10_parse::<u16>().map(|retries| u32::from(retries) + 1)?;
        } else if meta.path.is_ident("http") {
            self.http = true;
        } else {
            return Err(meta.error("unknown option; there are `name`, `timeout`, `retries` and `http`"));
        }
        Ok(())
    }
}

fn millis(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        _ => return None,
    };
    let millis = number.parse::<u32>().ok()?.checked_mul(unit_ms)?;
    (1..=1000 * 3600 * 1000).contains(&millis).then_some(millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;

    #[test]
    fn options_are_read() {
        let options = Options::parse(quote! { name = "hold-seat", timeout = "30s", retries = 3, http }).unwrap();
        assert_eq!(options.name.as_deref(), Some("hold-seat"));
        assert_eq!((options.timeout_ms, options.max_attempts), (30_000, 4));
        assert!(options.http && !Options::parse(quote! {}).unwrap().http);
        let none = Options::parse(quote! {}).unwrap();
        assert_eq!((none.name, none.timeout_ms, none.max_attempts), (None, 0, 0));
    }

    #[test]
    fn what_is_no_option_is_refused() {
        for tokens in [
            quote! { timeout = "30" },
            quote! { timeout = "0s" },
            quote! { timeout = "2000h" },
            quote! { timeout = 30 },
            quote! { name = "" },
            quote! { retries = "3" },
            quote! { retries = 70000 },
            quote! { priority = 1 },
        ] {
            assert!(Options::parse(tokens.clone()).is_err(), "{tokens}");
        }
    }
}
