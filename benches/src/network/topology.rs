//! The network of the comparison, in the words of both: switches of workloads on one router, ACLs of port groups
//! with address sets, load balancers that are everywhere.

use std::fmt::Write as _;

/// How much there is of what.
#[derive(Debug, Clone, Copy)]
pub struct Topology {
    /// Switches.
    pub n_switches: usize,
    /// Workloads of a switch, at most 250.
    pub n_ports: usize,
    /// ACLs.
    pub n_acls: usize,
    /// Load balancers.
    pub n_balancers: usize,
}

/// Port groups, each with a part of the workloads and of the ACLs; address sets, and members of one.
const N_GROUPS: usize = 10;
const N_SETS: usize = 20;
const N_MEMBERS: usize = 50;
/// Backends of a load balancer.
const N_BACKENDS: usize = 3;
/// Switches of a file: a transaction has at most 10 000 operations.
const SWITCHES_PER_FILE: usize = 50;
/// Commands in one call of ovn-nbctl.
const WORDS_PER_CALL: usize = 100;

fn addresses(switch: usize, port: usize) -> String {
    let [high, low] = [switch >> 8, switch & 255];
    format!("02:20:{high:02x}:{low:02x}:00:{port:02x} 10.{}.0.{}", switch + 1, port + 2)
}

impl Topology {
    fn members(&self, group: usize) -> impl Iterator<Item = String> {
        let (n_switches, n_ports) = (self.n_switches, self.n_ports);
        let all = (0..n_switches).flat_map(move |switch| (0..n_ports).map(move |port| (switch, port)));
        all.filter(move |(switch, port)| (switch * n_ports + port) % N_GROUPS == group)
            .map(|(switch, port)| format!("p{switch}-{port}"))
    }

    fn backends(&self, balancer: usize) -> [String; N_BACKENDS] {
        std::array::from_fn(|n| {
            let (switch, port) = ((balancer + n) % self.n_switches, (balancer * 3 + n) % self.n_ports);
            format!("10.{}.0.{}:8080", switch + 1, port + 2)
        })
    }

    /// Calls of ovn-nbctl(8), which make the network.
    pub fn ovn(&self) -> Vec<Vec<String>> {
        let mut calls = vec![words("lr-add lr0")];
        for switch in 0..self.n_switches {
            let mut call = words(&format!(
                "ls-add ls{switch} -- lrp-add lr0 lrp{switch} 02:10:00:00:{:02x}:{:02x} 10.{}.0.1/16 \
                 -- lsp-add ls{switch} lr-ls{switch} -- lsp-set-type lr-ls{switch} router \
                 -- lsp-set-addresses lr-ls{switch} router -- lsp-set-options lr-ls{switch} router-port=lrp{switch}",
                switch >> 8,
                switch & 255,
                switch + 1
            ));
            for port in 0..self.n_ports {
                let (id, has) = (format!("p{switch}-{port}"), addresses(switch, port));
                call.extend(words(&format!("-- lsp-add ls{switch} {id}")));
                call.extend(["--", "lsp-set-addresses", &id, &has].map(str::to_owned));
                call.extend(["--", "lsp-set-port-security", &id, &has].map(str::to_owned));
            }
            calls.push(call);
        }
        for group in 0..N_GROUPS {
            let named = ["pg-add".to_owned(), format!("pg{group}")];
            calls.push(named.into_iter().chain(self.members(group)).collect());
        }
        for set in 0..N_SETS {
            let members: Vec<_> = (0..N_MEMBERS).map(|n| format!("\"172.{}.{n}.0/24\"", 16 + set)).collect();
            let mut call = words(&format!("create Address_Set name=as{set}"));
            call.push(format!("addresses={}", members.join(",")));
            calls.push(call);
        }
        let acls: Vec<_> = (0..self.n_acls).map(|n| acl(n).ovn()).collect();
        let balancers: Vec<_> = (0..self.n_balancers)
            .map(|n| {
                let vip = format!("192.168.{}.{}:80", n >> 8, n & 255);
                words(&format!("lb-add lb{n} {vip} {} tcp", self.backends(n).join(",")))
            })
            .collect();
        calls.extend(
            [acls, balancers].concat().chunks(WORDS_PER_CALL).map(|part| part.join(&"--".to_owned())),
        );
        calls
    }

    /// Files for `vswitchctl apply`, in order.
    pub fn ours(&self) -> Vec<String> {
        let mut first = String::from("address_sets:\n");
        for set in 0..N_SETS {
            let members: Vec<_> = (0..N_MEMBERS).map(|n| format!("172.{}.{n}.0/24", 16 + set)).collect();
            let _ = writeln!(first, "  as{set}: {{addresses: [{}]}}", members.join(", "));
        }
        first.push_str("load_balancers:\n");
        for n in 0..self.n_balancers {
            let backends = self.backends(n).map(|address| format!("'{address}'")).join(", ");
            let vip = format!("192.168.{}.{}:80", n >> 8, n & 255);
            let _ = writeln!(first, "  lb{n}: {{vips: [{{address: '{vip}', backends: [{backends}]}}]}}");
        }
        let balancers: Vec<_> = (0..self.n_balancers).map(|n| format!("lb{n}")).collect();
        let balancers = balancers.join(", ");
        let _ = writeln!(first, "routers:\n  lr0:\n    load_balancers: [{balancers}]\n    ports:");
        for switch in 0..self.n_switches {
            let [high, low] = [switch >> 8, switch & 255];
            let mac = format!("'02:10:00:00:{high:02x}:{low:02x}'");
            let _ =
                writeln!(first, "      lrp{switch}: {{mac: {mac}, networks: [10.{}.0.1/16]}}", switch + 1);
        }
        let mut files = vec![first];
        let switches: Vec<_> = (0..self.n_switches).collect();
        for part in switches.chunks(SWITCHES_PER_FILE) {
            let mut file = String::from("switches:\n");
            for switch in part {
                let _ = writeln!(file, "  ls{switch}:\n    load_balancers: [{balancers}]\n    ports:");
                let _ = writeln!(file, "      lr-ls{switch}: {{router_port: lrp{switch}}}");
                for port in 0..self.n_ports {
                    let has = addresses(*switch, port);
                    let _ = writeln!(
                        file,
                        "      p{switch}-{port}: {{addresses: ['{has}'], port_security: ['{has}']}}"
                    );
                }
            }
            files.push(file);
        }
        let mut last = String::from("port_groups:\n");
        for group in 0..N_GROUPS {
            let members: Vec<_> = self.members(group).collect();
            let _ = writeln!(last, "  pg{group}:\n    ports: [{}]\n    acls:", members.join(", "));
            for n in (0..self.n_acls).filter(|n| n % N_GROUPS == group) {
                let Acl { is_to, priority, matching, .. } = acl(n);
                let direction = if is_to { "to-lport" } else { "from-lport" };
                let _ = writeln!(
                    last,
                    "      acl{n}: {{direction: {direction}, priority: {priority}, match: '{matching}', action: allow-related}}"
                );
            }
        }
        files.push(last);
        files
    }

    /// Words that put the load balancers everywhere, given their ids in OVN's database and that of a group.
    pub fn ovn_balancers(&self, ids: &[String], group: &str) -> Vec<Vec<String>> {
        let named = words(&format!("add Load_Balancer_Group {group} load_balancer"));
        let mut calls: Vec<_> =
            ids.chunks(WORDS_PER_CALL).map(|part| [named.as_slice(), part].concat()).collect();
        calls.push(words(&format!("set Logical_Router lr0 load_balancer_group={group}")));
        calls.extend(
            (0..self.n_switches)
                .map(|n| words(&format!("set Logical_Switch ls{n} load_balancer_group={group}"))),
        );
        calls
    }
}

/// An ACL of a group.
struct Acl {
    group: usize,
    is_to: bool,
    priority: usize,
    matching: String,
}

fn acl(n: usize) -> Acl {
    let (group, is_to) = (n % N_GROUPS, n % 2 == 1);
    let (port, address) = if is_to { ("outport", "src") } else { ("inport", "dst") };
    let set = n % N_SETS;
    let matching = format!("{port} == @pg{group} && ip4.{address} == $as{set} && tcp.dst == {}", 1000 + n);
    Acl { group, is_to, priority: 1000 + n % 20, matching }
}

impl Acl {
    fn ovn(self) -> Vec<String> {
        let direction = if self.is_to { "to-lport" } else { "from-lport" };
        let mut call = words(&format!("acl-add pg{} {direction} {}", self.group, self.priority));
        call.extend([self.matching, "allow-related".to_owned()]);
        call
    }
}

/// Words with a space between them.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_have_the_same() {
        let small = Topology { n_switches: 60, n_ports: 3, n_acls: 40, n_balancers: 5 };
        let (theirs, ours) = (small.ovn(), small.ours());
        let count = |what: &str| theirs.iter().flatten().filter(|word| *word == what).count();
        let told = ours.concat();
        let said = |what: &str| told.matches(what).count();
        assert_eq!((count("lsp-set-port-security"), said("port_security:")), (180, 180));
        assert_eq!((count("acl-add"), said("allow-related")), (40, 40));
        assert_eq!((count("lb-add"), said("vips:")), (5, 5));
        assert_eq!((count("lrp-add"), said("networks:")), (60, 60));
        let members = theirs.iter().filter(|call| call[0] == "pg-add").map(|call| call.len() - 2);
        assert_eq!(members.sum::<usize>(), 180);
        assert_eq!(ours.len(), 4);
    }
}
