//! The connection of one run.

use joblog::client::{Client, ClientError, Options};
use tokio::sync::OnceCell;

use crate::args::ServerArgs;

/// The server that the command line names. It is connected to when it is first needed, so that a
/// wrong command line is told as such also where no server is.
#[derive(Debug)]
pub(crate) struct Server {
    args: ServerArgs,
    client: OnceCell<Client>,
}

impl Server {
    pub(crate) fn new(args: ServerArgs) -> Self {
        Self { args, client: OnceCell::new() }
    }

    /// Where the server is, as the command line says.
    pub(crate) fn address(&self) -> &str {
        &self.args.server
    }

    /// The connection.
    pub(crate) async fn connect(&self) -> Result<&Client, ClientError> {
        self.connect_with(|options| options).await
    }

    /// The connection, made with these options if it is not there yet.
    pub(crate) async fn connect_with(
        &self,
        adapt: impl FnOnce(Options) -> Options,
    ) -> Result<&Client, ClientError> {
        let agent = concat!("qctl/", env!("CARGO_PKG_VERSION"));
        let options = Options::default().agent(agent).request_timeout(self.args.timeout);
        let connect = || Client::connect(self.args.server.as_str(), adapt(options));
        self.client.get_or_try_init(connect).await
    }

    /// Says goodbye, so that the server need not keep the session until it has been silent.
    pub(crate) async fn goodbye(self) {
        if let Some(client) = self.client.into_inner() {
            // The run is over either way.
            drop(client.close().await);
        }
    }
}
