//! `address-set`: addresses that matches refer to as `$NAME`.

use clap::Args;
use ferroflow_proto::northbound::{AddressSet, Resource, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::Noun,
    net::{
        command::About,
        object::{NoStatus, Object, Options, Patch, labels_of, wrong_kind},
    },
};

/// Options of a new address set.
#[derive(Debug, Args)]
pub struct NewAddressSet {
    /// A member: 10.0.0.5, 10.0.0.0/24, a MAC address; may be repeated
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<String>,
}

/// Changes of an address set.
#[derive(Debug, Args)]
pub struct AddressSetChanges {
    /// A member instead of those before; may be repeated
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// No members
    #[arg(long, conflicts_with = "addresses")]
    no_addresses: bool,
    /// One more member; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    add: Vec<String>,
    /// No longer a member; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    remove: Vec<String>,
}

impl Options for NewAddressSet {}
impl Options for AddressSetChanges {}

/// What a user sets of an address set; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressSetSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// Addresses and networks.
    #[serde(default)]
    pub addresses: Vec<String>,
}

impl Object for AddressSetSpec {
    const NOUN: Noun = Noun::AddressSet;
    const ABOUT: About = About {
        add: "Make an address set",
        set: "Change an address set",
        list: "List address sets",
        show: "Show an address set",
        del: "Delete an address set",
    };
    const HEADINGS: &'static [&'static str] = &["SET", "ADDRESSES", "LABELS"];
    type New = NewAddressSet;
    type Changes = AddressSetChanges;
    type Status = NoStatus;

    fn read(resource: &Resource) -> Result<(Self, NoStatus), CtlError> {
        let Some(resource::Spec::AddressSet(set)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        Ok((Self { labels: labels_of(resource), addresses: set.addresses.clone() }, NoStatus {}))
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::AddressSet(AddressSet { addresses: self.addresses.clone() })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewAddressSet, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        Ok(Self { labels, addresses: new.addresses })
    }

    fn change(given: &AddressSetChanges, _name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        patch.list("addresses", &given.addresses, given.no_addresses, |set| &mut set.addresses);
        patch.edit("addresses", (&given.add, &given.remove), |set| &mut set.addresses);
        Ok(())
    }

    fn cells(&self, _status: &NoStatus) -> Vec<String> {
        vec![self.addresses.len().to_string()]
    }

    fn fields(&self, _status: &NoStatus) -> Vec<(&'static str, String)> {
        self.addresses.iter().map(|address| ("address", address.clone())).collect()
    }
}
