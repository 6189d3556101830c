//! The addresses of one server, and which of them is tried next.

use std::io;
use std::sync::Arc;

use super::error::ClientError;

/// Where a server can be reached: one address or several, each as `host:port`. From a text they
/// are parted at commas.
///
/// ```
/// # use joblog::client::Addresses;
/// let one = Addresses::from("127.0.0.1:7411");
/// assert_eq!(Addresses::from("a:7411, b:7411"), Addresses::from(["a:7411", "b:7411"]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    addresses: Vec<String>,
    /// The place of the one that is tried now, or that the connection goes to.
    current: usize,
}

impl Addresses {
    pub(crate) fn count(&self) -> usize {
        self.addresses.len().max(1)
    }

    /// The one that is tried now; without any, an empty one, which can't be connected to.
    pub(crate) fn current(&self) -> &str {
        self.addresses.get(self.current).map_or("", String::as_str)
    }

    pub(crate) fn turn(&mut self) {
        self.current = (self.current + 1) % self.count();
    }

    /// One error for a whole round: what a server said, or how each could not be reached.
    pub(crate) fn all_failed(&self, errors: Vec<ClientError>) -> ClientError {
        let (mut texts, mut kind, mut last) = (Vec::new(), io::ErrorKind::Other, None);
        for error in errors {
            let ClientError::Unreachable { address, cause } = &error else {
                return error;
            };
            texts.push(format!("{address}: {cause}"));
            kind = cause.kind();
            last = Some(error);
        }
        match last {
            Some(only) if texts.len() == 1 => only,
            _ => ClientError::Unreachable {
                address: self.addresses.join(", "),
                cause: Arc::new(io::Error::new(kind, texts.join("; "))),
            },
        }
    }
}

impl From<&str> for Addresses {
    fn from(text: &str) -> Self {
        let parts = text.split(',').map(str::trim).filter(|address| !address.is_empty());
        parts.collect()
    }
}

impl From<String> for Addresses {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&String> for Addresses {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl<S: Into<String>> From<Vec<S>> for Addresses {
    fn from(addresses: Vec<S>) -> Self {
        addresses.into_iter().collect()
    }
}

impl<S: Into<String>, const COUNT: usize> From<[S; COUNT]> for Addresses {
    fn from(addresses: [S; COUNT]) -> Self {
        addresses.into_iter().collect()
    }
}

impl<S: Into<String>> FromIterator<S> for Addresses {
    fn from_iter<I: IntoIterator<Item = S>>(addresses: I) -> Self {
        Self { addresses: addresses.into_iter().map(Into::into).collect(), current: 0 }
    }
}
