//! What a command is given: the global options, a place to print to, and connections
//! to the daemons.

use std::io::Write;

use ferroflow_proto::host::{
    bridge_service_client::BridgeServiceClient, capture_service_client::CaptureServiceClient,
    conntrack_service_client::ConntrackServiceClient, endpoint_service_client::EndpointServiceClient,
    event_service_client::EventServiceClient, host_service_client::HostServiceClient,
    lab_service_client::LabServiceClient, rule_service_client::RuleServiceClient,
    underlay_service_client::UnderlayServiceClient, worker_service_client::WorkerServiceClient,
};
use serde::Serialize;
use tonic::{Request, Response, Status, transport::Channel};

use crate::{
    address::Daemon,
    cli::Global,
    client::Northbound,
    error::CtlError,
    output::{Format, Table, Tabular},
};

/// Largest answer that is taken from a daemon: a table dump of a busy host is tens of
/// megabytes.
pub(crate) const ANSWER_MAX: usize = 256 << 20;

/// One run of a command.
pub struct Session<'a> {
    /// Options every command takes.
    pub global: Global,
    /// Where the answer goes.
    pub out: &'a mut dyn Write,
}

impl<'a> Session<'a> {
    /// A session that prints to `out`.
    pub fn new(global: Global, out: &'a mut dyn Write) -> Self {
        Self { global, out }
    }

    /// Connects to the controller.
    pub(crate) async fn controller(&self) -> Result<Northbound, CtlError> {
        let timeout = self.global.timeout();
        let channel =
            self.global.controller()?.connect(Daemon::Controller, &self.global.trust, timeout).await?;
        Ok(Northbound::new(channel, timeout))
    }

    /// The way to the host's switch.
    async fn host_channel(&self) -> Result<Channel, CtlError> {
        self.global.host()?.connect(Daemon::Host, &self.global.trust, self.global.timeout()).await
    }

    /// The bridge that was named; empty: the only one.
    pub(crate) fn bridge(&self) -> String {
        self.global.bridge.clone().unwrap_or_default()
    }

    /// A request to the host's switch with the deadline of this session.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.global.timeout());
        request
    }

    /// Prints `values` as a table, or all they have as JSON or YAML.
    pub(crate) fn print_rows<T: Serialize + Tabular>(&mut self, values: &[T]) -> Result<(), CtlError> {
        self.print(&values, |out| Table::of(values).write(out))
    }

    /// Prints one of several values that come one after the other, at once: in JSON an
    /// object a line, so that a reader need not wait for an end.
    pub(crate) fn print_line<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<(), CtlError> {
        match self.global.output {
            Format::Table => text(self.out)?,
            Format::Json => {
                serde_json::to_writer(&mut *self.out, value).map_err(std::io::Error::from)?;
                writeln!(self.out)?;
            }
            Format::Yaml => {
                writeln!(self.out, "---")?;
                serde_norway::to_writer(&mut *self.out, value).map_err(std::io::Error::other)?;
            }
        }
        self.out.flush()?;
        Ok(())
    }

    /// Prints `value` as `text` does, or all it has as JSON or YAML.
    pub(crate) fn print<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<(), CtlError> {
        match self.global.output {
            Format::Table => text(self.out)?,
            Format::Json => {
                serde_json::to_writer_pretty(&mut *self.out, value).map_err(std::io::Error::from)?;
                writeln!(self.out)?;
            }
            Format::Yaml => serde_norway::to_writer(&mut *self.out, value).map_err(std::io::Error::other)?,
        }
        Ok(())
    }
}

/// Declares connections to the services of the host's switch.
macro_rules! host_clients {
    ($($(#[$doc:meta])* $name:ident: $client:ident;)*) => {
        impl Session<'_> {
            $($(#[$doc])*
            pub(crate) async fn $name(&self) -> Result<$client<Channel>, CtlError> {
                Ok($client::new(self.host_channel().await?).max_decoding_message_size(ANSWER_MAX))
            })*
        }
    };
}

host_clients! {
    /// Connects to the host's switch.
    host: HostServiceClient;
    /// Connects to the host's switch, for what its bridges do by themselves.
    bridges: BridgeServiceClient;
    /// Connects to the host's switch, for its rules, groups and meters.
    rules: RuleServiceClient;
    /// Connects to the host's switch, for the connections it tracks.
    conntrack: ConntrackServiceClient;
    /// Connects to the host's switch, for what it tells of by itself.
    events: EventServiceClient;
    /// Connects to the host's switch, for its containers' interfaces.
    endpoints: EndpointServiceClient;
    /// Connects to the host's switch, for its workers.
    workers: WorkerServiceClient;
    /// Connects to the host's switch, for packets as they pass.
    captures: CaptureServiceClient;
    /// Connects to the host's switch, for the way to other hosts.
    underlay: UnderlayServiceClient;
    /// Connects to a switch that is a lab.
    lab: LabServiceClient;
}

/// The answer of a host's switch, or the error in words.
pub(crate) fn host_answer<T>(result: Result<Response<T>, Status>) -> Result<T, CtlError> {
    result.map(Response::into_inner).map_err(|status| CtlError::from_status(Daemon::Host, &status))
}
