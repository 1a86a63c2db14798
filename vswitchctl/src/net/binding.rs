//! Waiting until the hosts that it concerns know where a switch port is.

use std::time::{Duration, Instant};

use ferroflow_proto::{
    host::GetStatusRequest,
    northbound::{Resource, resource::Spec},
};

use super::receipt::ReceiptView;
use crate::{
    error::CtlError,
    name::Noun,
    session::{Session, host_answer},
};

/// How often the controller is asked.
const INTERVAL: Duration = Duration::from_millis(20);

/// With `--wait`: waits until a switch port is on the host that was asked, and everybody who
/// has to knows it.
///
/// # Errors
/// That is not so in time, or somebody does not answer.
pub(crate) async fn wait_until_up(session: &Session<'_>, logical_port: &str) -> Result<(), CtlError> {
    let Some(wait) = session.global.wait() else { return Ok(()) };
    let end = Instant::now() + wait;
    let status = host_answer(session.host().await?.get_status(session.request(GetStatusRequest {})).await)?;
    let chassis = format!("chassis/{}", status.chassis);
    let mut nb = session.controller().await?;
    loop {
        match nb.find(Noun::SwitchPort, logical_port).await {
            Ok(port) if is_up(&port, &chassis) => break,
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        if Instant::now() >= end {
            return Err(CtlError::NotUp { port: logical_port.to_owned(), chassis: status.chassis });
        }
        tokio::time::sleep(INTERVAL).await;
    }
    let revision = nb.revision().await?;
    let left = end.saturating_duration_since(Instant::now());
    ReceiptView::from(nb.receipt(revision, Some(left)).await?).check()
}

fn is_up(port: &Resource, chassis: &str) -> bool {
    matches!(&port.spec, Some(Spec::LogicalSwitchPort(port)) if port.up && port.chassis == chassis)
}
