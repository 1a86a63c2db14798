//! How much of anything one request may bring. Each bound is far above what a network
//! needs and far below what would hurt.

/// Bytes of one gRPC message to the controller.
pub const MAX_MESSAGE_LEN: usize = 16 << 20;
/// Operations of a transaction.
pub const MAX_OPERATIONS: usize = 10_000;
/// Preconditions of a transaction.
pub const MAX_PRECONDITIONS: usize = 10_000;
/// Bytes of an id, a segment of a name.
pub const MAX_ID_LEN: usize = 63;
/// Entries of a port's `addresses` or `port_security`.
pub const MAX_ADDRESS_ENTRIES: usize = 128;
/// IP addresses of one entry.
pub const MAX_IPS: usize = 64;
/// Networks of a router port.
pub const MAX_NETWORKS: usize = 64;
/// Static routes of a router.
pub const MAX_STATIC_ROUTES: usize = 10_000;
/// Bytes of an ACL's match.
pub const MAX_MATCH_LEN: usize = 16 << 10;
/// Labels of a resource.
pub const MAX_LABELS: usize = 64;
/// Bytes of a label's key.
pub const MAX_LABEL_KEY_LEN: usize = 128;
/// Bytes of a label's value.
pub const MAX_LABEL_VALUE_LEN: usize = 1024;
/// Bytes of a host's name (RFC 1035 §2.3.4).
pub const MAX_HOSTNAME_LEN: usize = 255;
/// Paths of a field mask.
pub const MAX_MASK_PATHS: usize = 64;
/// Ports one chassis can claim: as many as a switch has port numbers for.
pub const MAX_CLAIMS: usize = 65_536;
/// Backends whose health one chassis can tell of.
pub const MAX_HEALTH: usize = 65_536;
/// Neighbours that one chassis can tell of at once: twice what it can have heard of.
pub const MAX_NEIGHBOURS: usize = 32_768;
/// Neighbours of a router port that hosts are told of.
pub const MAX_HEARD: usize = 1024;
/// Errors of one acknowledgement that are kept, and bytes of each.
pub const MAX_ACK_ERRORS: usize = 100;
/// Characters of one such error.
pub const MAX_ACK_ERROR_LEN: usize = 1024;
/// Largest page of a list.
pub const MAX_PAGE: usize = 1000;
/// Addresses of an address set: as many as a host has rules for.
pub const MAX_SET_MEMBERS: usize = 65_536;
/// Ports of a port group.
pub const MAX_GROUP_PORTS: usize = 65_536;
/// Bytes of the name that a log has for an ACL.
pub const MAX_LOG_NAME_LEN: usize = 63;
/// Load balancers of a switch or router.
pub const MAX_LOAD_BALANCERS: usize = 10_000;
/// Load balancers of a group.
pub const MAX_GROUP_BALANCERS: usize = 65_536;
/// Groups of load balancers of a switch or router.
pub const MAX_BALANCER_GROUPS: usize = 64;
/// Questions that a workload is asked by its host.
pub const MAX_PORT_CHECKS: usize = 8;
/// Services of a load balancer.
pub const MAX_VIPS: usize = 4096;
/// Backends of a service: as many as a group has buckets.
pub const MAX_BACKENDS: usize = 4096;
/// Fields that decide among several.
pub const MAX_HASH_FIELDS: usize = 16;
/// Bytes of the name of a chain of policies, or of some static routes.
pub const MAX_WORD_LEN: usize = 63;
/// Next hops of a policy.
pub const MAX_NEXT_HOPS: usize = 64;
/// Ports that may have the address of a virtual one.
pub const MAX_VIRTUAL_PARENTS: usize = 64;
/// Hosts that may be one gateway.
pub const MAX_CANDIDATES: usize = 64;
/// Values of a variable, of all chassis.
pub const MAX_TEMPLATE_VALUES: usize = 65_536;
/// Bytes of a value.
pub const MAX_TEMPLATE_VALUE_LEN: usize = 128;
/// Collectors that an ACL tells of packets: each is one more thing to do with a packet.
pub const MAX_SAMPLE_COLLECTORS: usize = 8;
/// Addresses where a collector is told.
pub const MAX_SAMPLE_TARGETS: usize = 8;
/// Ranges of addresses that a switch does not give.
pub const MAX_EXCLUDED: usize = 1024;
/// Records of a list of names.
pub const MAX_NAMES: usize = 65_536;
/// Addresses of a name: as many as an answer has room for.
pub const MAX_NAME_ADDRESSES: usize = 16;
/// Lists of names that a switch has.
pub const MAX_NAME_LISTS: usize = 64;
/// Resolvers, domains, routes of a router advertisement, which is one packet.
pub const MAX_RA_ENTRIES: usize = 8;
/// MAC addresses that a router port is told.
pub const MAX_STATIC_MACS: usize = 1024;
/// Next hops of a router port that are asked whether they live.
pub const MAX_BFD_SESSIONS: usize = 64;
/// Next hops that one chassis can tell of: all of many routers.
pub const MAX_SESSIONS: usize = 65_536;
/// Networks that a translation names.
pub const MAX_NAT_NETWORKS: usize = 128;
