//! The command line as a whole: the options every command takes, and the list of
//! commands. A command's own options are in its file.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    address::{Address, HostAddress, Trust},
    completion::{CompleteNames, Completions},
    error::CtlError,
    host, net,
    output::Format,
    pki,
    session::Session,
};

/// Where daemons are when nothing is said.
const CONTROLLER: &str = "127.0.0.1:6641";
const HOST: &str = "/run/ferroflow/vswitchd.sock";
/// A lab's controller among its hosts.
const CONTROLLER_NAME: &str = "controller";

/// Operates a Ferroflow network and the switches of its hosts.
#[derive(Debug, Parser)]
#[command(name = "vswitchctl", version, max_term_width = 100, after_help = NAMES_HELP)]
pub struct Cli {
    /// Options every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const NAMES_HELP: &str = "\
Names: an object may be named by its id where that is unambiguous (web-1), by its parent
and its id (web/web-1), or in full (switches/web/ports/web-1).
Exit codes: 0 done, 1 not done, 2 wrong usage.";

/// Options every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where the controller is: https://HOST:PORT, http://HOST:PORT, HOST:PORT (with --credentials the
    /// former) or unix:///PATH [default: 127.0.0.1:6641]
    #[arg(long, global = true, env = "VSWITCH_CONTROLLER", value_name = "ADDRESS")]
    pub controller: Option<Address>,
    /// Who asks, and who is trusted.
    #[command(flatten)]
    pub trust: Trust,
    /// Where the host's switch is, for all commands about a host or a lab; with --lab also the
    /// name of one of its hosts [default: unix:///run/ferroflow/vswitchd.sock]
    #[arg(long, global = true, env = "VSWITCH_HOST", value_name = "ADDRESS")]
    pub host: Option<HostAddress>,
    /// Directory of a lab of several hosts (vswitchctl lab start), whose controller and hosts
    /// are meant
    #[arg(long, global = true, env = "VSWITCH_LAB", value_name = "DIR")]
    pub lab: Option<PathBuf>,
    /// Which of the host's bridges, where it has several; it may also be the first word behind
    /// the command, as with ovs-ofctl: flow dump br0
    #[arg(long, global = true, env = "VSWITCH_BRIDGE", value_name = "NAME")]
    pub bridge: Option<String>,
    /// How to print the answer
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// After a change, or after attaching a switch port, wait until all affected hosts have applied
    /// it (30 s if no number is given)
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "30",
        value_parser = clap::value_parser!(u32).range(1..=86_400)
    )]
    pub wait: Option<u32>,
    /// How long to wait for each answer of a daemon
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=3600)
    )]
    pub timeout: u32,
}

impl Global {
    /// Where the controller is.
    ///
    /// # Errors
    /// The lab's directory cannot be told.
    pub fn controller(&self) -> Result<Address, CtlError> {
        match (&self.controller, &self.lab) {
            (Some(address), _) => Ok(address.clone()),
            (None, Some(lab)) => Address::in_lab(lab, CONTROLLER_NAME),
            (None, None) => Ok(Address::Tcp(CONTROLLER.to_owned())),
        }
    }

    /// Where the host's switch is.
    ///
    /// # Errors
    /// It is not said which host of a lab is meant, or of which lab.
    pub fn host(&self) -> Result<Address, CtlError> {
        match (&self.host, &self.lab) {
            (Some(HostAddress::At(address)), _) => Ok(address.clone()),
            (Some(HostAddress::Named(name)), Some(lab)) => Address::in_lab(lab, name),
            (Some(HostAddress::Named(name)), None) => Err(CtlError::Usage(format!(
                "{name} is the name of a lab's host: say with --lab or VSWITCH_LAB which lab, or give an address, unix:///PATH"
            ))),
            (None, Some(lab)) => Err(CtlError::Usage(format!(
                "which host of the lab? name it with --host: {}",
                lab_hosts(lab).join(", ")
            ))),
            (None, None) => Ok(Address::Unix(HOST.into())),
        }
    }

    /// Deadline of one call.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }

    /// How long to wait for a receipt, if asked to.
    pub fn wait(&self) -> Option<Duration> {
        self.wait.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// Names of the hosts that have sockets in a lab's directory.
fn lab_hosts(lab: &Path) -> Vec<String> {
    let entries = fs::read_dir(lab).into_iter().flatten().flatten();
    let sockets =
        entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".sock")?.to_owned()));
    let mut names: Vec<_> = sockets.filter(|name| name != CONTROLLER_NAME).collect();
    names.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    names
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Logical switches: L2 networks
    #[command(subcommand)]
    Switch(net::command::Command<net::switch::SwitchSpec>),
    /// Ports of logical switches: workloads and links to routers
    #[command(subcommand)]
    SwitchPort(net::command::Command<net::switch_port::SwitchPortSpec>),
    /// Logical routers
    #[command(subcommand)]
    Router(net::command::Command<net::router::RouterSpec>),
    /// Ports of logical routers
    #[command(subcommand)]
    RouterPort(net::command::Command<net::router_port::RouterPortSpec>),
    /// Address translation by routers
    #[command(subcommand)]
    Nat(net::command::Command<net::nat::NatSpec>),
    /// What overrules the routes of routers
    #[command(subcommand)]
    RouterPolicy(net::command::Command<net::router_policy::RouterPolicySpec>),
    /// Addresses that stand for backends
    #[command(subcommand)]
    LoadBalancer(net::command::Command<net::load_balancer::LoadBalancerSpec>),
    /// Access rules of logical switches and port groups
    #[command(subcommand)]
    Acl(net::command::Command<net::acl::AclSpec>),
    /// Marks and rates of what logical switches forward
    #[command(subcommand)]
    QosRule(net::command::Command<net::qos_rule::QosRuleSpec>),
    /// Addresses that matches refer to as $NAME
    #[command(subcommand)]
    AddressSet(net::command::Command<net::address_set::AddressSetSpec>),
    /// Switch ports that matches refer to as @NAME, with ACLs of their own
    #[command(subcommand)]
    PortGroup(net::command::Command<net::port_group::PortGroupSpec>),
    /// What DHCP clients are told
    #[command(subcommand)]
    DhcpOptions(net::command::Command<net::dhcp_options::DhcpOptionsSpec>),
    /// Names that workloads can resolve
    #[command(subcommand)]
    Names(net::command::Command<net::names::NamesSpec>),
    /// Load balancers that are used together
    #[command(subcommand)]
    LoadBalancerGroup(net::command::Command<net::load_balancer_group::LoadBalancerGroupSpec>),
    /// Hosts that may be a gateway
    #[command(subcommand)]
    HaChassisGroup(net::command::Command<net::ha_chassis_group::HaChassisGroupSpec>),
    /// Values that matches and load balancers refer to as ^NAME, others on each chassis
    #[command(subcommand)]
    TemplateVariable(net::command::Command<net::template_variable::TemplateVariableSpec>),
    /// Collectors of packets that ACLs sample
    #[command(subcommand)]
    SampleCollector(net::command::Command<net::sample_collector::SampleCollectorSpec>),
    /// Bounds on what packets ask hosts for
    #[command(subcommand)]
    ControlPlaneLimits(net::command::Command<net::limits::LimitsSpec>),
    /// Hosts that run vswitchd
    #[command(subcommand)]
    Chassis(net::chassis::Command),
    /// Make the logical network look as a file says
    Apply(net::apply::Apply),
    /// Tell what `apply` would change, field by field
    Diff(net::diff::Diff),
    /// Tell why two workloads can or cannot talk
    Explain(net::explain::Explain),
    /// Print the logical network as a file that `apply` takes
    Export(net::export::Export),
    /// Write the whole logical network to a file, to be restored from
    Backup(net::backup::Backup),
    /// Make the logical network what a backup says, all of it or nothing
    Restore(net::backup::Restore),
    /// Tell how far a revision has been applied on the hosts
    Receipt(net::receipt::Receipt),
    /// Print changes of the logical network as they happen
    Watch(net::watch::Watch),
    /// Host: who this switch is and how it fares; or how far each host of the network is
    Status(host::status::Status),
    /// Host: bridges, which are switches with ports and rules of their own
    #[command(subcommand)]
    Bridge(host::bridge::Command),
    /// Host: where the workers' time goes
    Perf(host::perf::Perf),
    /// Host: workers, and which of them has which receive queue
    #[command(subcommand)]
    Worker(host::worker::Command),
    /// Host: interfaces attached to the switch
    #[command(subcommand)]
    Port(host::port::Command),
    /// Host: the way to other hosts
    #[command(subcommand)]
    Tunnel(host::tunnel::Command),
    /// Host: neighbours that are known, on the underlay and of logical routers
    #[command(subcommand)]
    Neighbour(host::neighbour::Command),
    /// Host: show packets as they come in, leave and are dropped
    Capture(host::capture::Capture),
    /// Host: show which flows and pairs of ports have most of the traffic
    Top(host::top::Top),
    /// Host: rules of the flow tables
    #[command(subcommand)]
    Flow(host::flow::Command),
    /// Host: groups
    #[command(subcommand)]
    Group(host::group::Command),
    /// Host: meters
    #[command(subcommand)]
    Meter(host::meter::Command),
    /// Host: change rules, groups, meters and sets in one transaction
    Bundle(host::bundle::BundleCommand),
    /// Host: tables, their settings and counters
    #[command(subcommand)]
    Table(host::table::Command),
    /// Host: how rules see IP fragments
    Frags(host::table::Frags),
    /// Host: Geneve options that rules see as tun_metadata fields
    #[command(subcommand)]
    TlvMap(host::tlv_map::Command),
    /// Host: named sets of addresses and ports
    #[command(subcommand)]
    Set(host::set::Command),
    /// Host: tracked connections
    #[command(subcommand)]
    Ct(host::ct::Command),
    /// Host: where stations are, as NORMAL has learned
    #[command(subcommand)]
    Fdb(host::fdb::Command),
    /// Host: interfaces of containers
    #[command(subcommand)]
    Endpoint(host::endpoint::Command),
    /// Host: put the CNI plugin where container runtimes look for it
    #[command(subcommand)]
    Cni(host::cni::Command),
    /// Host: print events as they happen: packets for controllers, rules that end, ports
    Monitor(host::monitor::Monitor),
    /// Host: carry out actions on a packet of your own
    PacketOut(host::packet_out::PacketOut),
    /// Host: let a packet go on that waits for its controller
    Resume(host::packet_out::Resume),
    /// Host: entries of the flow cache
    #[command(subcommand)]
    Megaflow(host::megaflow::Command),
    /// Host: dropped packets, each with its reason and the object that caused it
    Drops(host::drops::Drops),
    /// Host: how often what happened to packets, and what is in memory
    Coverage(host::coverage::Coverage),
    /// Host: tell what rules see of a frame
    ParseFrame(host::parse_frame::ParseFrame),
    /// Host: tell or change what the daemon logs
    Log(host::log::Log),
    /// Host: walk one packet through the tables without sending it
    Trace(host::trace::Trace),
    /// Lab: drive a switch without interfaces, to learn with and to test
    #[command(subcommand)]
    Lab(host::lab::Command),
    /// Certificates: an authority, and who has one of it
    #[command(subcommand)]
    Pki(pki::Command),
    /// Print a shell's completions
    Completions(Completions),
    /// Print names that may come next, for completions
    #[command(hide = true)]
    CompleteNames(CompleteNames),
}

impl Command {
    /// Whether `--wait` means something to it.
    pub fn takes_wait(&self) -> bool {
        match self {
            Self::Switch(command) => command.writes(),
            Self::SwitchPort(command) => command.writes(),
            Self::Router(command) => command.writes(),
            Self::RouterPort(command) => command.writes(),
            Self::Acl(command) => command.writes(),
            Self::QosRule(command) => command.writes(),
            Self::AddressSet(command) => command.writes(),
            Self::PortGroup(command) => command.writes(),
            Self::Nat(command) => command.writes(),
            Self::RouterPolicy(command) => command.writes(),
            Self::LoadBalancer(command) => command.writes(),
            Self::DhcpOptions(command) => command.writes(),
            Self::Names(command) => command.writes(),
            Self::LoadBalancerGroup(command) => command.writes(),
            Self::HaChassisGroup(command) => command.writes(),
            Self::TemplateVariable(command) => command.writes(),
            Self::SampleCollector(command) => command.writes(),
            Self::ControlPlaneLimits(command) => command.writes(),
            Self::Apply(_) | Self::Receipt(_) => true,
            Self::Chassis(command) => command.writes(),
            Self::Diff(_) | Self::Explain(_) | Self::Export(_) | Self::Watch(_) | Self::Status(_) => false,
            Self::Port(command) => command.takes_wait(),
            Self::Lab(command) => command.takes_wait(),
            Self::Perf(_) | Self::Worker(_) | Self::Bridge(_) => false,
            Self::Tunnel(_) | Self::Neighbour(_) | Self::Capture(_) | Self::Top(_) => false,
            Self::Flow(_)
            | Self::Group(_)
            | Self::Meter(_)
            | Self::Bundle(_)
            | Self::Table(_)
            | Self::Frags(_)
            | Self::TlvMap(_)
            | Self::Set(_)
            | Self::Ct(_)
            | Self::Fdb(_)
            | Self::Endpoint(_)
            | Self::Cni(_)
            | Self::Monitor(_)
            | Self::PacketOut(_)
            | Self::Resume(_)
            | Self::Megaflow(_)
            | Self::Drops(_)
            | Self::Coverage(_)
            | Self::ParseFrame(_)
            | Self::Log(_)
            | Self::Trace(_)
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Pki(_)
            | Self::Completions(_)
            | Self::CompleteNames(_) => false,
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// What kept it from being done.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::Switch(command) => command.run(session).await,
            Self::SwitchPort(command) => command.run(session).await,
            Self::Router(command) => command.run(session).await,
            Self::RouterPort(command) => command.run(session).await,
            Self::Acl(command) => command.run(session).await,
            Self::QosRule(command) => command.run(session).await,
            Self::AddressSet(command) => command.run(session).await,
            Self::PortGroup(command) => command.run(session).await,
            Self::Nat(command) => command.run(session).await,
            Self::RouterPolicy(command) => command.run(session).await,
            Self::LoadBalancer(command) => command.run(session).await,
            Self::DhcpOptions(command) => command.run(session).await,
            Self::Names(command) => command.run(session).await,
            Self::LoadBalancerGroup(command) => command.run(session).await,
            Self::HaChassisGroup(command) => command.run(session).await,
            Self::TemplateVariable(command) => command.run(session).await,
            Self::SampleCollector(command) => command.run(session).await,
            Self::ControlPlaneLimits(command) => command.run(session).await,
            Self::Chassis(command) => command.run(session).await,
            Self::Apply(command) => command.run(session).await,
            Self::Diff(command) => command.run(session).await,
            Self::Explain(command) => command.run(session).await,
            Self::Export(command) => command.run(session).await,
            Self::Backup(command) => command.run(session).await,
            Self::Restore(command) => command.run(session).await,
            Self::Receipt(command) => command.run(session).await,
            Self::Watch(command) => command.run(session).await,
            Self::Status(command) => command.run(session).await,
            Self::Bridge(command) => command.run(session).await,
            Self::Perf(command) => command.run(session).await,
            Self::Worker(command) => command.run(session).await,
            Self::Port(command) => command.run(session).await,
            Self::Tunnel(command) => command.run(session).await,
            Self::Neighbour(command) => command.run(session).await,
            Self::Capture(command) => command.run(session).await,
            Self::Top(command) => command.run(session).await,
            Self::Flow(command) => command.run(session).await,
            Self::Group(command) => command.run(session).await,
            Self::Meter(command) => command.run(session).await,
            Self::Bundle(command) => command.run(session).await,
            Self::Table(command) => command.run(session).await,
            Self::Frags(command) => command.run(session).await,
            Self::TlvMap(command) => command.run(session).await,
            Self::Set(command) => command.run(session).await,
            Self::Ct(command) => command.run(session).await,
            Self::Fdb(command) => command.run(session).await,
            Self::Endpoint(command) => command.run(session).await,
            Self::Cni(command) => command.run(session).await,
            Self::Monitor(command) => command.run(session).await,
            Self::PacketOut(command) => command.run(session).await,
            Self::Resume(command) => command.run(session).await,
            Self::Megaflow(command) => command.run(session).await,
            Self::Drops(command) => command.run(session).await,
            Self::Coverage(command) => command.run(session).await,
            Self::ParseFrame(command) => command.run(session).await,
            Self::Log(command) => command.run(session).await,
            Self::Trace(command) => command.run(session).await,
            Self::Lab(command) => command.run(session).await,
            Self::Pki(command) => command.run(session),
            Self::Completions(command) => command.run(session),
            Self::CompleteNames(command) => command.run(session).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_declaration_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_host_of_a_lab_goes_by_its_name() {
        let global = |args: &[&str]| {
            Cli::try_parse_from([&["vswitchctl"], args, &["status"]].concat()).map(|cli| cli.global)
        };
        let lab = global(&["--lab", "/x", "--host", "h2"]).unwrap();
        assert_eq!(lab.host().unwrap(), Address::Unix("/x/h2.sock".into()));
        assert_eq!(lab.controller().unwrap(), Address::Unix("/x/controller.sock".into()));
        assert!(global(&["--host", "h2"]).unwrap().host().is_err());
        assert!(global(&["--lab", "/x"]).unwrap().host().unwrap_err().to_string().contains("which host"));
        let plain = global(&[]).unwrap();
        assert_eq!(plain.host().unwrap(), Address::Unix(HOST.into()));
        assert_eq!(plain.controller().unwrap(), Address::Tcp(CONTROLLER.into()));
        assert!(global(&["--host", "h/2"]).is_err());
    }

    #[test]
    fn wait_takes_its_number_only_with_an_equals_sign() {
        let wait = |args: &[&str]| Cli::try_parse_from(args).map(|cli| cli.global.wait);
        assert_eq!(wait(&["vswitchctl", "switch", "add", "web"]).unwrap(), None);
        assert_eq!(wait(&["vswitchctl", "--wait", "switch", "add", "web"]).unwrap(), Some(30));
        assert_eq!(wait(&["vswitchctl", "switch", "add", "web", "--wait=5"]).unwrap(), Some(5));
        assert!(wait(&["vswitchctl", "switch", "add", "web", "--wait=0"]).is_err());
    }

    #[test]
    fn only_changes_can_be_waited_for() {
        let takes = |args: &[&str]| Cli::try_parse_from(args).unwrap().command.takes_wait();
        assert!(takes(&["vswitchctl", "acl", "del", "db/no-telnet"]));
        assert!(takes(&["vswitchctl", "receipt", "7"]));
        assert!(!takes(&["vswitchctl", "acl", "list"]));
        assert!(!takes(&["vswitchctl", "trace", "icmp"]));
    }

    /// The words of a command as a shell would split them.
    fn words(command: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut is_quoted = false;
        for c in command.chars() {
            match c {
                '"' => is_quoted = !is_quoted,
                ' ' if !is_quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words
    }

    #[test]
    fn every_command_for_people_who_come_from_ovn_is_one() {
        let page = include_str!("../../docs/coming-from-ovn.md");
        let mut n_commands = 0;
        for line in page.lines().filter(|line| line.starts_with("| ")) {
            let here = line.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            for command in here.split('`').filter(|text| text.starts_with("vswitchctl ")) {
                if let Err(error) = Cli::try_parse_from(words(command)) {
                    panic!("{command}: {error}");
                }
                n_commands += 1;
            }
        }
        assert!(n_commands > 60, "only {n_commands} commands were found");
    }

    /// Commands of ovn-nbctl(8) and ovn-sbctl(8) 23.03. That these are all, `oracle/tests/ovn` sees.
    const OVN_COMMANDS: &str = "acl-add acl-del acl-list add clear copp-add copp-del copp-list create \
        del-connection del-ssl destroy dhcp-options-create dhcp-options-del dhcp-options-get-options \
        dhcp-options-list dhcp-options-set-options find fwd-group-add fwd-group-del fwd-group-list get \
        get-connection get-ssl ha-chassis-group-add ha-chassis-group-add-chassis ha-chassis-group-del \
        ha-chassis-group-list ha-chassis-group-remove-chassis init lb-add lb-del lb-list list lr-add lr-copp-add \
        lr-del lr-lb-add lr-lb-del lr-lb-list lr-list lr-nat-add lr-nat-del lr-nat-list lr-policy-add \
        lr-policy-del lr-policy-list lr-route-add lr-route-del lr-route-list lrp-add lrp-del \
        lrp-del-gateway-chassis lrp-get-enabled lrp-get-gateway-chassis lrp-get-redirect-type lrp-list \
        lrp-set-enabled lrp-set-gateway-chassis lrp-set-options lrp-set-redirect-type ls-add ls-copp-add ls-del \
        ls-lb-add ls-lb-del ls-lb-list ls-list lsp-add lsp-attach-mirror lsp-del lsp-detach-mirror \
        lsp-get-addresses lsp-get-dhcpv4-options lsp-get-dhcpv6-options lsp-get-enabled lsp-get-ls \
        lsp-get-options lsp-get-parent lsp-get-port-security lsp-get-tag lsp-get-type lsp-get-up lsp-list \
        lsp-set-addresses lsp-set-dhcpv4-options lsp-set-dhcpv6-options lsp-set-enabled lsp-set-options \
        lsp-set-port-security lsp-set-type meter-add meter-del meter-list mirror-add mirror-del mirror-list \
        pg-add pg-del pg-set-ports qos-add qos-del qos-list remove set set-connection set-ssl show \
        static-mac-binding-add static-mac-binding-del static-mac-binding-list sync wait-until chassis-add \
        chassis-del count-flows dump-flows lflow-list lsp-bind lsp-unbind comment \
        ha-chassis-group-set-chassis-prio ip-multicast-flush lr-nat-update-ext-ip";

    #[test]
    fn every_command_of_ovn_has_its_place() {
        let page = include_str!("../../docs/coming-from-ovn.md");
        let there = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
        let told: Vec<_> = there.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        for command in OVN_COMMANDS.split_whitespace() {
            let is_told = told.iter().any(|text| text.split_whitespace().next() == Some(command));
            assert!(is_told, "{command} is not in docs/coming-from-ovn.md");
        }
    }
}
