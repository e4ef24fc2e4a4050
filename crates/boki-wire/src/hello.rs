//! The start of a connection, and what keeps it going.
//!
//! Whoever opens a connection sends the preamble and a [`Hello`]; the server answers with a [`HelloOk`], or
//! with an error and the end of the connection. Questions may follow the `Hello` at once.

use boki_log::LogError;
use boki_log::codec::{Reader, Writer};
use boki_net::BodyWriter;
use bytes::{BufMut, Bytes};

use crate::{Message, empty_message, kinds};

/// The version of the messages that this crate speaks.
pub const VERSION: u16 = 1;

/// What the opening side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It asks.
    Client,
    /// It asks, and runs functions: a registration follows.
    Worker,
}

/// The first frame of a connection. `corr` is 0.
///
/// | offset | field | |
/// |---|---|---|
/// | 0 | version | u16, the highest that this side speaks |
/// | 2 | role | u8: 1 client, 2 worker |
/// | 3 | flags | u8, zero |
/// | 4 | name | name: for humans |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The highest version that the opening side speaks.
    pub version: u16,
    /// What it is.
    pub role: Role,
    /// What a human calls it.
    pub name: String,
}

impl Message for Hello {
    const KIND: u8 = kinds::HELLO;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        out.put_u16_le(self.version);
        out.put_u8(match self.role {
            Role::Client => 1,
            Role::Worker => 2,
        });
        out.put_u8(0);
        out.put_short_str(&self.name);
    }

    fn decode(body: &Bytes) -> Result<Hello, LogError> {
        let mut reader = Reader::new(body);
        let version = reader.u16()?;
        let role = match reader.u8()? {
            1 => Role::Client,
            2 => Role::Worker,
            _ => return Err(LogError::Malformed { reason: "an unknown role" }),
        };
        if reader.u8()? != 0 {
            return Err(LogError::Malformed { reason: "unknown flags" });
        }
        let name = reader.short_str()?.to_owned();
        reader.finish()?;
        Ok(Hello { version, role, name })
    }
}

/// The server takes the connection.
///
/// | offset | field | |
/// |---|---|---|
/// | 0 | version | u16, the one that both now speak |
/// | 2 | | u16, zero |
/// | 4 | in flight | u32, how many questions may be open at once |
/// | 8 | body | u32, the largest body of a frame that the server accepts |
/// | 12 | name | name: of the server, for humans |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloOk {
    /// The version that both now speak: at most the client's.
    pub version: u16,
    /// How many questions may be open at once; further ones are refused as overload.
    pub max_in_flight: u32,
    /// The largest body of a frame that the server accepts, in bytes.
    pub max_body: u32,
    /// What a human calls the server.
    pub name: String,
}

impl Message for HelloOk {
    const KIND: u8 = kinds::HELLO_OK;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        out.put_u16_le(self.version);
        out.put_u16_le(0);
        out.put_u32_le(self.max_in_flight);
        out.put_u32_le(self.max_body);
        out.put_short_str(&self.name);
    }

    fn decode(body: &Bytes) -> Result<HelloOk, LogError> {
        let mut reader = Reader::new(body);
        let version = reader.u16()?;
        reader.u16()?;
        let (max_in_flight, max_body) = (reader.u32()?, reader.u32()?);
        let name = reader.short_str()?.to_owned();
        reader.finish()?;
        Ok(HelloOk { version, max_in_flight, max_body, name })
    }
}

/// Are you there? Either side may ask. No fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping;

empty_message!(Ping, kinds::PING);

/// I am. No fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong;

empty_message!(Pong, kinds::PONG);

/// The question with this `corr` is given up: no answer to it is wanted, though one may be on its way already.
/// Ends a waiting read; a call goes on if it is on record; anything else is done anyway. No fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancel;

empty_message!(Cancel, kinds::CANCEL);
