// SPDX-License-Identifier: Apache-2.0
//! The nat rules of App Mesh as input of `iptables-restore`. Pure; called by `intercept`. The chains and their order are
//! those of the ECS plugin `aws-appmesh`, with one difference: a list of more than 15 ports becomes several rules, where
//! the plugin dropped the rest without a word.

use std::fmt::Write;
use std::net::IpAddr;
use std::str::FromStr;

/// What the kernel takes in one `multiport` match.
const PORTS_OF_A_RULE: usize = 15;
const INGRESS: &str = "APPMESH_INGRESS";
const EGRESS: &str = "APPMESH_EGRESS";

/// What is redirected, and what is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Inbound connections to these go to `ingress`.
    pub app_ports: Vec<u16>,
    /// The proxy's port for them.
    pub ingress: u16,
    /// The proxy's port for outbound connections.
    pub egress: u16,
    /// Not redirected.
    pub ignored_ports: Vec<u16>,
    /// Not redirected.
    pub ignored_networks: Vec<Network>,
    /// The proxy's user.
    pub uid: Option<u32>,
    /// The proxy's group.
    pub gid: Option<u32>,
}

/// An address with a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    ip: IpAddr,
    bits: u8,
}

/// Not an address, or a prefix longer than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoNetwork;

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Network, NoNetwork> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits.parse::<u8>().map_err(|_| NoNetwork)?)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| NoNetwork)?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most)
            .then_some(Network { ip, bits })
            .ok_or(NoNetwork)
    }
}

/// Which of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// iptables.
    V4,
    /// ip6tables.
    V6,
}

impl Family {
    pub(super) fn program(self) -> &'static str {
        match self {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        }
    }

    pub(super) fn restore(self) -> &'static str {
        match self {
            Family::V4 => "iptables-restore",
            Family::V6 => "ip6tables-restore",
        }
    }
}

impl Rules {
    /// Replaces whatever of ours is `installed` by these rules, in one transaction.
    pub fn script(&self, family: Family, installed: &[String]) -> String {
        let mut lines = vec!["*nat".to_owned()];
        // Declaring a chain empties it; the jumps to it are what would pile up.
        lines.extend([INGRESS, EGRESS].map(|chain| format!(":{chain} - [0:0]")));
        lines.extend(jumps(installed).map(|jump| jump.replacen("-A", "-D", 1)));
        if self.app_ports.is_empty() {
            lines.push(format!("-X {INGRESS}"));
        } else {
            for ports in self.app_ports.chunks(PORTS_OF_A_RULE) {
                let ports = comma_separated(ports);
                lines.push(format!(
                    "-A {INGRESS} -p tcp -m multiport --dports {ports} -j REDIRECT --to-ports {}",
                    self.ingress
                ));
            }
            lines.push(format!(
                "-A PREROUTING -p tcp -m addrtype ! --src-type LOCAL -j {INGRESS}"
            ));
        }
        lines.extend(self.egress(family));
        lines.push(format!(
            "-A OUTPUT -p tcp -m addrtype ! --dst-type LOCAL -j {EGRESS}"
        ));
        transaction(lines)
    }

    fn egress(&self, family: Family) -> Vec<String> {
        let owner = |kind: &str, id: Option<u32>| {
            id.map(|id| format!("-A {EGRESS} -m owner --{kind}-owner {id} -j RETURN"))
        };
        let mut lines: Vec<String> = owner("uid", self.uid)
            .into_iter()
            .chain(owner("gid", self.gid))
            .collect();
        for ports in self.ignored_ports.chunks(PORTS_OF_A_RULE) {
            let ports = comma_separated(ports);
            lines.push(format!(
                "-A {EGRESS} -p tcp -m multiport --dports {ports} -j RETURN"
            ));
        }
        let networks = self
            .ignored_networks
            .iter()
            .filter(|network| network.ip.is_ipv4() == (family == Family::V4));
        lines
            .extend(networks.map(|Network { ip, bits }| {
                format!("-A {EGRESS} -p tcp -d {ip}/{bits} -j RETURN")
            }));
        lines.push(format!(
            "-A {EGRESS} -p tcp -j REDIRECT --to-ports {}",
            self.egress
        ));
        lines
    }
}

/// Takes away whatever of ours is `installed`.
pub(super) fn removal(installed: &[String]) -> String {
    let mut lines = vec!["*nat".to_owned()];
    lines.extend([INGRESS, EGRESS].map(|chain| format!(":{chain} - [0:0]")));
    lines.extend(jumps(installed).map(|jump| jump.replacen("-A", "-D", 1)));
    lines.extend([INGRESS, EGRESS].map(|chain| format!("-X {chain}")));
    transaction(lines)
}

/// The lines of `iptables -S` that are ours: chains, their rules, and the jumps to them.
pub(super) fn ours(listed: &str) -> Vec<String> {
    listed
        .lines()
        .filter(|line| line.contains(INGRESS) || line.contains(EGRESS))
        .map(str::to_owned)
        .collect()
}

fn jumps(installed: &[String]) -> impl Iterator<Item = &String> {
    installed
        .iter()
        .filter(|line| line.starts_with("-A PREROUTING ") || line.starts_with("-A OUTPUT "))
}

fn comma_separated(ports: &[u16]) -> String {
    let mut text = String::new();
    for port in ports {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let written = write!(text, "{comma}{port}");
        debug_assert!(written.is_ok());
    }
    text
}

fn transaction(mut lines: Vec<String>) -> String {
    lines.push("COMMIT".to_owned());
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            app_ports: vec![8080],
            ingress: 15000,
            egress: 15001,
            uid: Some(1337),
            ..Rules::default()
        }
    }

    #[test]
    fn the_rules_are_those_of_the_ecs_plugin_in_its_order() {
        let rules = Rules {
            gid: Some(7),
            ignored_ports: vec![22, 2049],
            ignored_networks: vec![
                "169.254.169.254".parse().unwrap(),
                "fd00::/8".parse().unwrap(),
            ],
            ..rules()
        };
        let expected = "\
*nat
:APPMESH_INGRESS - [0:0]
:APPMESH_EGRESS - [0:0]
-A APPMESH_INGRESS -p tcp -m multiport --dports 8080 -j REDIRECT --to-ports 15000
-A PREROUTING -p tcp -m addrtype ! --src-type LOCAL -j APPMESH_INGRESS
-A APPMESH_EGRESS -m owner --uid-owner 1337 -j RETURN
-A APPMESH_EGRESS -m owner --gid-owner 7 -j RETURN
-A APPMESH_EGRESS -p tcp -m multiport --dports 22,2049 -j RETURN
-A APPMESH_EGRESS -p tcp -d 169.254.169.254/32 -j RETURN
-A APPMESH_EGRESS -p tcp -j REDIRECT --to-ports 15001
-A OUTPUT -p tcp -m addrtype ! --dst-type LOCAL -j APPMESH_EGRESS
COMMIT
";
        assert_eq!(rules.script(Family::V4, &[]), expected);
        let six = rules.script(Family::V6, &[]);
        assert!(
            six.contains("-d fd00::/8") && !six.contains("169.254"),
            "{six}"
        );
    }

    #[test]
    fn a_sixteenth_port_gets_a_rule_of_its_own() {
        let rules = Rules {
            app_ports: (1..=16).collect(),
            ..rules()
        };
        let script = rules.script(Family::V4, &[]);
        assert!(script.contains("--dports 16 -j REDIRECT"), "{script}");
    }

    #[test]
    fn what_is_installed_is_replaced_not_doubled() {
        let listed = "-P OUTPUT ACCEPT\n-N APPMESH_EGRESS\n-A OUTPUT -p tcp -m addrtype ! --dst-type LOCAL -j APPMESH_EGRESS\n\
                      -A OUTPUT -p tcp -j OTHER\n";
        let script = rules().script(Family::V4, &ours(listed));
        assert!(
            script.contains("-D OUTPUT -p tcp -m addrtype ! --dst-type LOCAL -j APPMESH_EGRESS\n"),
            "{script}"
        );
        assert!(!script.contains("OTHER"), "{script}");
    }

    #[test]
    fn without_app_ports_nothing_inbound_is_touched() {
        let rules = Rules {
            app_ports: vec![],
            ..rules()
        };
        assert!(!rules.script(Family::V4, &[]).contains("PREROUTING"));
    }
}
