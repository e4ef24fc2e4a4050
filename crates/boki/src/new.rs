//! `boki new`: a project with one file of code.
//!
//! The SDKs are not published, so the project names its own by the path.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::NewArgs;
use crate::failure::Failure;
use crate::output::Output;

/// What a project in one language is made of.
struct Language {
    /// Each file's path and text; in the text, `{{name}}` and `{{sdk}}` are filled in.
    files: &'static [(&'static str, &'static str)],
    /// Where the SDK was when this binary was built.
    sdk_beside: &'static str,
    /// A file of the SDK.
    sdk_file: &'static str,
    /// What its path may not contain, to stand in those files.
    not_in_path: &'static [char],
    /// What the SDK is called, and where it lies in a checkout.
    sdk: (&'static str, &'static str),
}

const RUST: Language = Language {
    files: &[
        ("Cargo.toml", include_str!("../templates/rust/Cargo.toml.template")),
        ("src/main.rs", include_str!("../templates/rust/main.rs.template")),
        ("src/tests.rs", include_str!("../templates/rust/tests.rs.template")),
        ("boki.toml", include_str!("../templates/rust/boki.toml.template")),
        ("README.md", include_str!("../templates/rust/README.md.template")),
        (".gitignore", "/target\n/.boki\n"),
    ],
    sdk_beside: concat!(env!("CARGO_MANIFEST_DIR"), "/../boki-sdk"),
    sdk_file: "Cargo.toml",
    not_in_path: &['"', '\\', '\n'],
    sdk: ("crate boki-sdk", "crates/boki-sdk"),
};

const PYTHON: Language = Language {
    files: &[
        ("app.py", include_str!("../templates/python/app.py.template")),
        ("test_app.py", include_str!("../templates/python/test_app.py.template")),
        ("requirements.txt", include_str!("../templates/python/requirements.txt.template")),
        ("boki.toml", include_str!("../templates/python/boki.toml.template")),
        ("README.md", include_str!("../templates/python/README.md.template")),
        (".gitignore", "/.venv\n/.boki\n__pycache__\npytest-cache-files-*\n"),
    ],
    sdk_beside: concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk/python"),
    sdk_file: "pyproject.toml",
    not_in_path: &['"', '\\', '\n', ' ', '#', ';'],
    sdk: ("package boki", "sdk/python"),
};

pub(crate) fn run(args: &NewArgs, mut out: Output) -> Result<(), Failure> {
    let language = if args.py { PYTHON } else { RUST };
    let name = project_name(&args.path)?;
    let sdk = language.sdk_path(args.sdk_path.as_deref())?;
    if args.path.exists() {
        return Err(Failure::input(
            format!("{} exists already", args.path.display()),
            "choose another name, or remove it",
        ));
    }
    for (path, text) in language.files {
        let path = args.path.join(path);
        let text = text.replace("{{name}}", &name).replace("{{sdk}}", &sdk);
        let write = || {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&path, text)
        };
        write().map_err(|error| Failure::io(format!("cannot write {}", path.display()), &error))?;
    }
    let folder = args.path.display().to_string();
    let paths: Vec<_> = language.files.iter().map(|(path, _)| path).collect();
    out.either(&json!({ "path": folder, "files": paths }), || {
        format!("made {folder}\n  next: cd {} && boki dev", crate::remote::shell_word(&folder))
    })?;
    out.finish()
}

/// The folder's name, if it can be that of a package.
fn project_name(path: &Path) -> Result<String, Failure> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_fine = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if is_fine {
        return Ok(name.to_owned());
    }
    let what =
        format!("{name:?} cannot be the name of a project: letters, digits, - and _ are allowed, a letter first");
    Err(Failure::input(what, "boki new shop"))
}

impl Language {
    fn sdk_path(&self, given: Option<&Path>) -> Result<String, Failure> {
        let (sdk, place) = self.sdk;
        let path = given.map_or_else(|| PathBuf::from(self.sdk_beside), Path::to_owned);
        let found = fs::canonicalize(&path).ok().filter(|path| path.join(self.sdk_file).exists());
        let Some(found) = found else {
            let what = format!("there is no {sdk} in {}", path.display());
            return Err(Failure::input(what, format!("boki new NAME --sdk-path /path/to/boki/{place}")));
        };
        match found.to_str() {
            Some(text) if !text.contains(self.not_in_path) => Ok(text.to_owned()),
            _ => Err(Failure::input(
                format!("the path {} cannot stand in a project's files", found.display()),
                "move the checkout to a plainer path",
            )),
        }
    }
}
