//! `group features` and `meter features`: what there can be of them.

use ferroflow_proto::host::{GetFeaturesRequest, GetFeaturesResponse, GroupFeatures, MeterFeatures};
use serde::Serialize;

use crate::{
    error::CtlError,
    output::write_fields,
    session::{Session, host_answer},
};

/// What is shown of groups.
#[derive(Debug, Serialize)]
struct GroupsView {
    types: Vec<String>,
    selection_methods: Vec<String>,
    capabilities: Vec<String>,
    max_group: u64,
    max_buckets: u64,
    max_chain: u64,
}

/// What is shown of meters.
#[derive(Debug, Serialize)]
struct MetersView {
    bands: Vec<String>,
    capabilities: Vec<String>,
    max_meter: u64,
    max_bands: u64,
    max_per_packet: u64,
}

async fn get(session: &Session<'_>) -> Result<GetFeaturesResponse, CtlError> {
    let mut rules = session.rules().await?;
    host_answer(rules.get_features(session.request(GetFeaturesRequest {})).await)
}

/// Tells what groups there can be.
pub(super) async fn groups(session: &mut Session<'_>) -> Result<(), CtlError> {
    let GroupFeatures { types, selection_methods, capabilities, max_group, max_buckets, max_chain } =
        get(session).await?.groups.unwrap_or_default();
    let view = GroupsView { types, selection_methods, capabilities, max_group, max_buckets, max_chain };
    session.print(&view, |out| {
        write_fields(
            out,
            &[
                ("types", view.types.join(" ")),
                ("selection methods", view.selection_methods.join(" ")),
                ("capabilities", view.capabilities.join(" ")),
                ("largest number", format!("{:#x}", view.max_group)),
                ("buckets of a group", view.max_buckets.to_string()),
                ("groups in each other", view.max_chain.to_string()),
            ],
        )
    })
}

/// Tells what meters there can be.
pub(super) async fn meters(session: &mut Session<'_>) -> Result<(), CtlError> {
    let MeterFeatures { bands, capabilities, max_meter, max_bands, max_per_packet } =
        get(session).await?.meters.unwrap_or_default();
    let view = MetersView { bands, capabilities, max_meter, max_bands, max_per_packet };
    session.print(&view, |out| {
        write_fields(
            out,
            &[
                ("band types", view.bands.join(" ")),
                ("capabilities", view.capabilities.join(" ")),
                ("largest number", format!("{:#x}", view.max_meter)),
                ("bands of a meter", view.max_bands.to_string()),
                ("meters of a packet", view.max_per_packet.to_string()),
            ],
        )
    })
}
