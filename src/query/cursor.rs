//! The end of a page, as a text that clients pass back and do not read.
//!
//! Base64 for URLs of: the version, a check sum of four bytes, flags, the position of the last record. The check sum also
//! covers the order, so that a cursor is refused where it would mean something else. It guards against mistakes, not against
//! forgers, who could ask for the same records in other ways.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

use super::sort::{Position, Sort};

const VERSION: u8 = 2;

const NO_ARRAYS: u8 = 1;

/// The place after which a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub position: Position,
    /// No sort field was an array in any record when the first page was read, so that the store may compare values where it
    /// would otherwise have to compare the least elements of arrays.
    pub no_arrays: bool,
}

impl Cursor {
    /// The text for a list in the order of `sort`.
    pub fn encode(&self, sort: &Sort) -> String {
        let mut body = vec![if self.no_arrays { NO_ARRAYS } else { 0 }];
        body.extend_from_slice(self.position.as_bytes());
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&check_sum(&body, sort));
        bytes.extend_from_slice(&body);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `None` when the text is not what [`Cursor::encode`] made for a list in this order.
    pub fn decode(text: &str, sort: &Sort) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (&version, rest) = bytes.split_first()?;
        let (sum, body) = rest.split_first_chunk::<4>()?;
        if version != VERSION || *sum != check_sum(body, sort) {
            return None;
        }
        let (&flags, position) = body.split_first()?;
        Some(Self { position: Position::from_bytes(position, sort).ok()?, no_arrays: flags & NO_ARRAYS != 0 })
    }
}

fn check_sum(body: &[u8], sort: &Sort) -> [u8; 4] {
    let sums = [rapidhash::v3::rapidhash_v3(body), rapidhash::v3::rapidhash_v3(sort.to_string().as_bytes())];
    ((sums[0] ^ sums[1].rotate_left(32)) as u32).to_le_bytes()
}
