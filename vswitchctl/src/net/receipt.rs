//! `receipt`: how far a revision has been applied on the hosts.

use std::io::{self, Write};

use clap::Args;
use ferroflow_proto::northbound::{ChassisReceipt, GetReceiptResponse};
use serde::Serialize;

use crate::{
    error::CtlError,
    output::{Table, Tabular, short, yes},
    session::Session,
};

/// Tell how far a revision has been applied.
#[derive(Debug, Args)]
pub struct Receipt {
    /// The revision, as a change printed it
    revision: u64,
}

impl Receipt {
    /// Does it; with `--wait`, the end is good only when every host has applied it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let wait = session.global.wait();
        let mut nb = session.controller().await?;
        let receipt = ReceiptView::from(nb.receipt(self.revision, wait).await?);
        session.print(&receipt, |out| receipt.write(out))?;
        if wait.is_some() { receipt.check() } else { Ok(()) }
    }
}

/// What is shown of a receipt.
#[derive(Debug, Clone, Serialize)]
pub struct ReceiptView {
    revision: u64,
    complete: bool,
    chassis: Vec<ChassisReceiptView>,
}

/// What is shown of a receipt of one host.
#[derive(Debug, Clone, Serialize)]
pub struct ChassisReceiptView {
    chassis: String,
    applied: bool,
    connected: bool,
    errors: Vec<String>,
}

impl From<GetReceiptResponse> for ReceiptView {
    fn from(receipt: GetReceiptResponse) -> Self {
        let view = |chassis: ChassisReceipt| ChassisReceiptView {
            chassis: chassis.chassis,
            applied: chassis.applied,
            connected: chassis.connected,
            errors: chassis.errors,
        };
        Self {
            revision: receipt.revision,
            complete: receipt.complete,
            chassis: receipt.chassis.into_iter().map(view).collect(),
        }
    }
}

impl Tabular for ChassisReceiptView {
    const HEADINGS: &'static [&'static str] = &["CHASSIS", "APPLIED", "CONNECTED", "ERRORS"];

    fn cells(&self) -> Vec<String> {
        let Self { chassis, applied, connected, errors } = self;
        vec![short(chassis).into(), yes(*applied), yes(*connected), errors.join("; ")]
    }
}

impl ReceiptView {
    /// Prints it: one line when all is well, the hosts when it is not.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let n_chassis = self.chassis.len();
        let n_applied = self.chassis.iter().filter(|chassis| chassis.applied).count();
        match (self.complete, n_chassis) {
            (true, 0) => writeln!(out, "revision {} concerns no host", self.revision)?,
            (true, 1) => writeln!(out, "revision {} is applied on the 1 host it concerns", self.revision)?,
            (true, n) => writeln!(out, "revision {} is applied on all {n} hosts", self.revision)?,
            (false, n) => writeln!(out, "revision {} is applied on {n_applied} of {n} hosts", self.revision)?,
        }
        if !self.complete || self.chassis.iter().any(|chassis| !chassis.errors.is_empty()) {
            Table::of(&self.chassis).write(out)?;
        }
        Ok(())
    }

    /// Whether every host has applied it, and without errors.
    ///
    /// # Errors
    /// [`CtlError::Pending`] otherwise.
    pub fn check(&self) -> Result<(), CtlError> {
        let named = |hosts: Vec<&ChassisReceiptView>| {
            hosts.iter().map(|host| short(&host.chassis)).collect::<Vec<_>>().join(", ")
        };
        let pending: Vec<_> = self.chassis.iter().filter(|host| !host.applied).collect();
        let failed: Vec<_> = self.chassis.iter().filter(|host| !host.errors.is_empty()).collect();
        let reason = if !pending.is_empty() || !self.complete {
            format!("not all hosts have applied it; pending: {}", named(pending))
        } else if !failed.is_empty() {
            format!("could not be realised in full on: {}", named(failed))
        } else {
            return Ok(());
        };
        Err(CtlError::Pending { revision: self.revision, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(complete: bool, hosts: &[(&str, bool, &str)]) -> ReceiptView {
        let host = |(chassis, applied, error): &(&str, bool, &str)| ChassisReceipt {
            chassis: format!("chassis/{chassis}"),
            applied: *applied,
            connected: true,
            errors: error.split_terminator(';').map(str::to_owned).collect(),
        };
        let chassis = hosts.iter().map(host).collect();
        ReceiptView::from(GetReceiptResponse { revision: 9, complete, chassis })
    }

    fn text(receipt: &ReceiptView) -> String {
        let mut text = Vec::new();
        receipt.write(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_complete_receipt_is_one_line() {
        let done = receipt(true, &[("h1", true, ""), ("h2", true, "")]);
        assert_eq!(text(&done), "revision 9 is applied on all 2 hosts\n");
        done.check().unwrap();
        receipt(true, &[]).check().unwrap();
    }

    #[test]
    fn the_hosts_that_are_missing_are_named() {
        let waiting = receipt(false, &[("h1", true, ""), ("h2", false, "")]);
        assert_eq!(
            text(&waiting),
            "revision 9 is applied on 1 of 2 hosts\n\
             CHASSIS  APPLIED  CONNECTED  ERRORS\n\
             h1       yes      yes        -\n\
             h2       no       yes        -\n"
        );
        assert_eq!(
            waiting.check().unwrap_err().to_string(),
            "revision 9 is stored, but not all hosts have applied it; pending: h2"
        );
    }

    #[test]
    fn a_host_that_could_not_do_it_fails_the_change() {
        let failed = receipt(true, &[("h1", true, "switches/a/acls/b: too deep")]);
        assert!(text(&failed).contains("switches/a/acls/b: too deep"));
        assert_eq!(
            failed.check().unwrap_err().to_string(),
            "revision 9 is stored, but could not be realised in full on: h1"
        );
    }
}
