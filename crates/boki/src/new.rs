//! `boki new`: a project with one file of code.
//!
//! The crates are not published, so the project names the SDK by its path.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::NewArgs;
use crate::failure::Failure;
use crate::output::Output;

const CARGO_TOML: &str = include_str!("../templates/rust/Cargo.toml.template");
const MAIN_RS: &str = include_str!("../templates/rust/main.rs.template");
const BOKI_TOML: &str = include_str!("../templates/rust/boki.toml.template");
const README: &str = include_str!("../templates/rust/README.md.template");
const GITIGNORE: &str = "/target\n/.boki\n";

/// Where the SDK was when this binary was built.
const BUILT_BESIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../boki-sdk");

pub(crate) fn run(args: &NewArgs, mut out: Output) -> Result<(), Failure> {
    let name = project_name(&args.path)?;
    let sdk = sdk_path(args.sdk_path.as_deref())?;
    if args.path.exists() {
        return Err(Failure::input(
            format!("{} exists already", args.path.display()),
            "choose another name, or remove it",
        ));
    }
    let fill = |template: &str| template.replace("{{name}}", &name).replace("{{sdk}}", &sdk);
    let files = [
        ("Cargo.toml", fill(CARGO_TOML)),
        ("src/main.rs", fill(MAIN_RS)),
        ("boki.toml", fill(BOKI_TOML)),
        ("README.md", fill(README)),
        (".gitignore", GITIGNORE.to_owned()),
    ];
    for (path, text) in &files {
        let path = args.path.join(path);
        let write = || {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&path, text)
        };
        write().map_err(|error| Failure::io(format!("cannot write {}", path.display()), &error))?;
    }
    let folder = args.path.display().to_string();
    let paths: Vec<_> = files.iter().map(|(path, _)| path).collect();
    out.either(&json!({ "path": folder, "files": paths }), || {
        format!("made {folder}\n  next: cd {} && boki dev", crate::remote::shell_word(&folder))
    })?;
    out.finish()
}

/// The folder's name, if Cargo takes it as a package's.
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

fn sdk_path(given: Option<&Path>) -> Result<String, Failure> {
    let path = given.map_or_else(|| PathBuf::from(BUILT_BESIDE), Path::to_owned);
    let found = fs::canonicalize(&path).ok().filter(|path| path.join("Cargo.toml").exists());
    let Some(found) = found else {
        let what = format!("there is no crate boki-sdk in {}", path.display());
        return Err(Failure::input(what, "boki new NAME --sdk-path /path/to/boki/crates/boki-sdk"));
    };
    match found.to_str() {
        Some(text) if !text.contains(['"', '\\']) => Ok(text.to_owned()),
        _ => Err(Failure::input(
            format!("the path {} cannot stand in Cargo.toml", found.display()),
            "move the checkout to a plainer path",
        )),
    }
}
