//! Whether a bridge can be as somebody wants to have it, before anything is changed for it.

use std::collections::BTreeSet;

use flowtable::{
    port::{PortInfo, PortRole, PortTable},
    types::PortNo,
};

use super::{
    BridgeError, BridgeSettings, ChangeError, Host, PortError, PortSettings, ProtocolError, SettingsError,
    WrittenChange, bridge::check_name, number, written,
};

/// A bridge as it is wanted.
#[derive(Debug, Clone, Default)]
pub struct Declaration {
    /// Its name.
    pub name: String,
    /// Its ports: names, numbers if they are to have some, and how they take part.
    pub ports: Vec<(String, Option<PortNo>, PortSettings)>,
    /// A JSON merge patch of what is usual.
    pub settings: String,
    /// Its rules; `None`: those that it has.
    pub rules: Option<Vec<WrittenChange>>,
}

/// A bridge cannot be so.
#[derive(Debug, thiserror::Error)]
pub enum DeclarationError {
    /// Its name.
    #[error("{0}")]
    Name(#[from] BridgeError),
    /// A port.
    #[error("port {port}: {error}")]
    Port {
        /// Which one.
        port: String,
        /// Why.
        error: Box<PortError>,
    },
    /// Two ports have one number.
    #[error("port {port}: its number {number} is another one's")]
    Number {
        /// Which one.
        port: String,
        /// Which number.
        number: PortNo,
    },
    /// What it is told.
    #[error("settings: {0}")]
    Settings(#[from] SettingsError),
    /// What it is told names what there is not, or something twice.
    #[error("settings: {0}")]
    Protocol(Box<ProtocolError>),
    /// Its rules.
    #[error("flows: {0}")]
    Rules(#[from] ChangeError),
}

impl Host {
    /// Says why a bridge cannot be so; whether its interfaces are there is found out only when
    /// they are attached.
    ///
    /// # Errors
    /// [`DeclarationError`] names the place.
    pub fn check_declaration(&self, wanted: &Declaration) -> Result<(), DeclarationError> {
        let present = self.bridges.iter().find(|bridge| bridge.name == wanted.name);
        if present.is_none() {
            check_name(&wanted.name)?;
        }
        let mut ports = self.declared_ports(wanted)?;
        let settings = BridgeSettings::default().patched(&wanted.settings, &ports)?;
        for (name, bond) in &settings.bonds {
            if ports.by_name(name).is_some() {
                return Err(DeclarationError::Protocol(Box::new(ProtocolError::NameInUse(name.clone()))));
            }
            // Rules may name it.
            let number = PortNo::new(bond.number).ok().filter(|number| *number != PortNo::ZERO);
            let number = number.or_else(|| free_number(&ports));
            if let Some(number) = number {
                ports.insert(number, info(name, PortRole::Workload));
            }
        }
        let Some(rules) = &wanted.rules else { return Ok(()) };
        let none = flowtable::table::Tables::default();
        let tables = present.map_or(&none, |bridge| &**bridge.tables());
        let changes = written::parse(rules, &ports, tables)?;
        tables.transact(changes).map_err(ChangeError::from)?;
        Ok(())
    }

    /// The ports that the bridge would have.
    fn declared_ports(&self, wanted: &Declaration) -> Result<PortTable, DeclarationError> {
        let mut ports = PortTable::default();
        self.add_tunnels_to(&wanted.name, &mut ports);
        let mut taken: BTreeSet<PortNo> = ports.iter().map(|(port, _)| port).collect();
        for (name, number, settings) in &wanted.ports {
            let refused = |error| DeclarationError::Port { port: name.clone(), error: Box::new(error) };
            settings.check().map_err(refused)?;
            if let Some(number) = number {
                if !taken.insert(*number) {
                    return Err(DeclarationError::Number { port: name.clone(), number: *number });
                }
                ports.insert(*number, info(name, PortRole::Workload));
            }
        }
        for (name, ..) in wanted.ports.iter().filter(|(_, number, _)| number.is_none()) {
            if let Some(number) = free_number(&ports) {
                ports.insert(number, info(name, PortRole::Workload));
            }
        }
        Ok(ports)
    }

    /// The uplink's tunnels, which the first bridge has.
    fn add_tunnels_to(&self, bridge: &str, ports: &mut PortTable) {
        let is_first = self.bridges.first().is_some_and(|first| first.name == bridge);
        if let Some(uplink) = self.uplink().filter(|_| is_first) {
            ports.insert(super::tunnels::UPLINK, info(uplink, PortRole::Uplink));
            self.add_tunnels(ports);
        }
    }
}

fn free_number(ports: &PortTable) -> Option<PortNo> {
    let mut numbers = (number(1).get()..).map_while(|raw| PortNo::new(raw).ok());
    numbers.find(|port| ports.get(*port).is_none())
}

fn info(name: &str, role: PortRole) -> PortInfo {
    PortInfo { name: name.to_owned(), role, up: true, mtu: super::ETHERNET_MTU, partial_checksums: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::protocols::daemon_without_interfaces;

    fn rules(lines: &[&str]) -> Option<Vec<WrittenChange>> {
        Some(lines.iter().map(|line| written::saved_line(line)).collect())
    }

    #[test]
    fn what_cannot_be_is_named_and_what_can_be_is_not_made() {
        let host = daemon_without_interfaces();
        let port = |name: &str, number: u32| {
            (name.to_owned(), PortNo::new(number).ok().filter(|port| port.get() > 0), PortSettings::default())
        };
        let good = Declaration {
            name: "br7".to_owned(),
            ports: vec![port("eth1", 5), port("eth2", 0)],
            settings: r#"{"bonds":{"bond0":{"members":["eth1"]}},"mirrors":{"m":{"select-all":true,"output-port":"eth2","filter":"in_port=eth1"}}}"#.to_owned(),
            rules: rules(&["in_port=eth1,actions=output:bond0", "priority=0,actions=NORMAL"]),
        };
        host.check_declaration(&good).unwrap();
        let refused = |wanted: &Declaration| host.check_declaration(wanted).unwrap_err().to_string();
        let with = |change: &dyn Fn(&mut Declaration)| {
            let mut wanted = good.clone();
            change(&mut wanted);
            refused(&wanted)
        };
        for (error, part) in [
            (with(&|wanted| wanted.name = "all".to_owned()), "cannot name a bridge"),
            (with(&|wanted| wanted.ports.push(port("eth3", 5))), "port eth3: its number 5"),
            (with(&|wanted| wanted.ports[0].2.tag = 9), "port eth1: "),
            (with(&|wanted| wanted.settings = r#"{"stp":1}"#.to_owned()), "settings: unknown field"),
            (with(&|wanted| wanted.settings = r#"{"bonds":{"eth1":{}}}"#.to_owned()), "port of this name"),
            (with(&|wanted| wanted.rules = rules(&["actions=output:eth9"])), "flows: "),
            (with(&|wanted| wanted.rules = rules(&["actions=group:7"])), "flows: "),
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(host.bridges().len(), 1);
    }
}
