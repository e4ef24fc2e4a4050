//! `boki key`: keys of encrypted data directories.

use boki_server::DataKey;

use crate::cli::KeyCommand;
use crate::failure::Failure;
use crate::output::Output;

pub(crate) fn run(command: &KeyCommand, mut out: Output) -> Result<(), Failure> {
    match command {
        KeyCommand::New => {
            let key = DataKey::generate().map_err(|error| Failure::io("the system has no random numbers", &error))?;
            let shown = serde_json::json!({ "key": key.reveal(), "id": key.check().to_string() });
            out.either(&shown, || key.reveal())?;
        }
        KeyCommand::Id => {
            let mut text = String::new();
            let read = std::io::Read::read_to_string(&mut std::io::stdin(), &mut text);
            read.map_err(|error| Failure::io("cannot read standard input", &error))?;
            let key: DataKey = text
                .parse()
                .map_err(|error: boki_server::InvalidDataKey| Failure::input(error.to_string(), "boki key new"))?;
            let id = key.check().to_string();
            out.either(&serde_json::json!({ "id": id }), || id.clone())?;
        }
    }
    out.finish()
}
