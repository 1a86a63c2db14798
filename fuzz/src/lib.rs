//! What hostile bytes and texts reach, each as a plain function that panics when something is wrong.
//!
//! Fuzzers call these through the programs in `fuzz/libfuzzer`; the test of this crate calls them with
//! every file of `fuzz/corpus/<target>/` and with thousands of variations of each. A finding becomes a file
//! of the corpus.
//!
//! [`frames`] what comes from wires and guests · [`texts`] what people and controllers write · [`rules`]
//! both at once · [`files`] what lies on disks · [`messages`] what comes by gRPC ·
//! [`served`] what workloads ask hosts for · [`bridges`] what bridges say to each other.
#![forbid(unsafe_code)]

pub mod bridges;
pub mod files;
pub mod frames;
pub mod messages;
pub mod rules;
pub mod served;
pub mod texts;

/// A function under fuzzing.
pub type Target = fn(&[u8]);

/// All targets by name, which is also that of their folder of the corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("frame", frames::frame),
    ("nd_options", frames::nd_options),
    ("tunnel", frames::tunnel),
    ("geneve", frames::geneve),
    ("vxlan", frames::vxlan),
    ("vhost_user", frames::vhost_user),
    ("flow_text", texts::flow),
    ("match_text", texts::matching),
    ("actions_text", texts::actions),
    ("key_text", texts::key),
    ("set_text", texts::set),
    ("mac_text", texts::mac),
    ("ovn_match", texts::ovn_match),
    ("ovn_actions", texts::ovn_actions),
    ("group_text", texts::group),
    ("meter_text", texts::meter),
    ("change_text", texts::change),
    ("filter_text", texts::filter),
    ("rules", rules::rules),
    ("tracked", rules::tracked),
    ("packet_out", rules::packet_out),
    ("datapath_text", rules::datapath_text),
    ("pcap", files::pcap),
    ("yaml", files::yaml),
    ("frame_text", files::frame_text),
    ("words", files::words),
    ("journal", files::journal),
    ("nb_name", messages::nb_name),
    ("nb_transaction", messages::nb_transaction),
    ("chassis_update", messages::chassis_update),
    ("served", served::served),
    ("bpdu", bridges::bpdu),
    ("lacp", bridges::lacp),
    ("groups", bridges::groups),
    ("lldp", bridges::lldp),
    ("ccm", bridges::ccm),
    ("bfd", bridges::bfd),
];
