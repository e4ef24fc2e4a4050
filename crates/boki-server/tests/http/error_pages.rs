//! Every code has a page, and every page a code.

use std::collections::BTreeSet;
use std::path::Path;

use boki_server::{PAGES, page};

use crate::client::start;

/// The codes that the sources of the crates name, as `"BK0000"`.
fn codes_in_sources(folder: &Path, codes: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            codes_in_sources(&path, codes);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for (at, _) in text.match_indices("\"BK") {
                let code = text.get(at + 1..at + 7).unwrap_or_default();
                if text.get(at + 7..at + 8) == Some("\"") && code.bytes().skip(2).all(|byte| byte.is_ascii_digit()) {
                    codes.insert(code.to_owned());
                }
            }
        }
    }
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut used = BTreeSet::new();
    for entry in std::fs::read_dir(root.join("crates")).unwrap() {
        codes_in_sources(&entry.unwrap().path().join("src"), &mut used);
    }
    let compiled: BTreeSet<String> = PAGES.iter().map(|page| page.code.to_owned()).collect();
    let files: BTreeSet<String> = std::fs::read_dir(root.join("docs/errors"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().trim_end_matches(".md").to_owned())
        .collect();
    assert_eq!(compiled, used);
    assert_eq!(compiled, files);
}

#[test]
fn every_page_says_what_happened_why_and_what_to_do() {
    for page in PAGES {
        assert!(page.markdown.starts_with(&format!("# {}: ", page.code)), "{}", page.code);
        assert!(!page.title().is_empty());
        let mut rest = page.markdown;
        for heading in ["\n## What happened\n", "\n## Why\n", "\n## What to do\n", "\n## Example\n"] {
            let at = rest.find(heading).unwrap_or_else(|| panic!("{} has no {heading:?}", page.code));
            rest = &rest[at + heading.len()..];
        }
    }
}

#[tokio::test]
async fn a_server_explains_its_codes() {
    let running = start().await;
    let answer = running.get("/errors/BK0201").await.ok();
    assert_eq!(answer.text(), page("BK0201").unwrap().markdown);
    assert_eq!(answer.header("content-type"), "text/markdown; charset=utf-8");
    let answer = running.send("GET", "/errors/bk0201", &[("accept", "text/html,*/*;q=0.8")], "").await.ok();
    assert!(answer.text().contains("<pre># BK0201: Condition failed"));
    running.get("/errors/BK9999").await.is_problem(404, "BK0501");
}
