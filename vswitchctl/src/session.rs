//! What a command is given: the global options, a place to print to, and connections
//! to the daemons.

use std::io::Write;

use ferroflow_proto::host::{
    conntrack_service_client::ConntrackServiceClient, endpoint_service_client::EndpointServiceClient,
    event_service_client::EventServiceClient, host_service_client::HostServiceClient,
    lab_service_client::LabServiceClient, rule_service_client::RuleServiceClient,
    worker_service_client::WorkerServiceClient,
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
        let channel = self.global.controller.connect(Daemon::Controller, timeout).await?;
        Ok(Northbound::new(channel, timeout))
    }

    /// Connects to the host's switch.
    pub(crate) async fn host(&self) -> Result<HostServiceClient<Channel>, CtlError> {
        let channel = self.global.host.connect(Daemon::Host, self.global.timeout()).await?;
        Ok(HostServiceClient::new(channel).max_decoding_message_size(ANSWER_MAX))
    }

    /// Connects to the host's switch, for its rules, groups and meters.
    pub(crate) async fn rules(&self) -> Result<RuleServiceClient<Channel>, CtlError> {
        let channel = self.global.host.connect(Daemon::Host, self.global.timeout()).await?;
        Ok(RuleServiceClient::new(channel).max_decoding_message_size(ANSWER_MAX))
    }

    /// Connects to the host's switch, for the connections it tracks.
    pub(crate) async fn conntrack(&self) -> Result<ConntrackServiceClient<Channel>, CtlError> {
        let channel = self.global.host.connect(Daemon::Host, self.global.timeout()).await?;
        Ok(ConntrackServiceClient::new(channel).max_decoding_message_size(ANSWER_MAX))
    }

    /// Connects to the host's switch, for what it tells of by itself.
    pub(crate) async fn events(&self) -> Result<EventServiceClient<Channel>, CtlError> {
        let channel = self.global.host.connect(Daemon::Host, self.global.timeout()).await?;
        Ok(EventServiceClient::new(channel).max_decoding_message_size(ANSWER_MAX))
    }

    /// Connects to the host's switch, for its containers' interfaces.
    pub(crate) async fn endpoints(&self) -> Result<EndpointServiceClient<Channel>, CtlError> {
        let channel = self.global.host.connect(Daemon::Host, self.global.timeout()).await?;
        Ok(EndpointServiceClient::new(channel).max_decoding_message_size(ANSWER_MAX))
    }

    /// Connects to the host's switch, for its workers.
    pub(crate) async fn workers(&self) -> Result<WorkerServiceClient<Channel>, CtlError> {
        let channel = self.global.host.connect(Daemon::Host, self.global.timeout()).await?;
        Ok(WorkerServiceClient::new(channel).max_decoding_message_size(ANSWER_MAX))
    }

    /// Connects to a switch that is a lab.
    pub(crate) async fn lab(&self) -> Result<LabServiceClient<Channel>, CtlError> {
        let channel = self.global.host.connect(Daemon::Host, self.global.timeout()).await?;
        Ok(LabServiceClient::new(channel).max_decoding_message_size(ANSWER_MAX))
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

/// The answer of a host's switch, or the error in words.
pub(crate) fn host_answer<T>(result: Result<Response<T>, Status>) -> Result<T, CtlError> {
    result.map(Response::into_inner).map_err(|status| CtlError::from_status(Daemon::Host, &status))
}
