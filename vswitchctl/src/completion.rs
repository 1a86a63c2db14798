//! What shells complete: commands and options, which the declaration of them has, and in bash
//! the names of objects, which the controller knows.

use clap::{Args, CommandFactory};

use crate::{
    CtlError, Session,
    cli::Cli,
    client::Labels,
    name::Noun,
    output::{parent_id, short},
};

/// Print a shell's completions.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Print names that may come next, a line each.
#[derive(Debug, Args)]
pub struct CompleteNames {
    /// What has been typed before
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Has bash ask for names beside what it knows. Where the controller does not answer at once
/// there are none.
const BASH_NAMES: &str = r#"
_vswitchctl_with_names() {
    local current=${COMP_WORDS[COMP_CWORD]} names word
    _vswitchctl "$@"
    [[ $current == -* ]] && return 0
    names=$("${COMP_WORDS[0]}" --timeout 2 complete-names -- "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)
    while IFS= read -r word; do
        [[ -n $word && $word == "$current"* ]] && COMPREPLY+=("$word")
    done <<< "$names"
    return 0
}
complete -F _vswitchctl_with_names -o bashdefault -o default vswitchctl
"#;

impl Completions {
    /// Prints them.
    ///
    /// # Errors
    /// They cannot be printed.
    pub fn run(&self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "vswitchctl", &mut text);
        if self.shell == clap_complete::Shell::Bash {
            text.extend_from_slice(BASH_NAMES.as_bytes());
        }
        session.out.write_all(&text).map_err(CtlError::Output)
    }
}

impl CompleteNames {
    /// Asks the controller and prints them.
    ///
    /// # Errors
    /// The controller does not answer.
    pub async fn run(&self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let words: Vec<_> = self.words.iter().map(String::as_str).collect();
        let Some(nouns) = wanted(&words) else { return Ok(()) };
        let said = words.iter().position(|word| *word == "--controller");
        if let Some(address) = said.and_then(|at| words.get(at + 1)) {
            session.global.controller = Some(address.parse().map_err(CtlError::Usage)?);
        }
        let mut controller = session.controller().await?;
        for noun in nouns {
            for resource in controller.list(*noun, None, &Labels::new()).await? {
                let name = match noun {
                    // Ids of the others are enough, or they are always named so.
                    Noun::Acl | Noun::Nat | Noun::RouterPolicy | Noun::QosRule => {
                        let group = if resource.name.starts_with("port-groups/") { "@" } else { "" };
                        format!("{group}{}/{}", parent_id(&resource.name), short(&resource.name))
                    }
                    _ => short(&resource.name).to_owned(),
                };
                writeln!(session.out, "{name}").map_err(CtlError::Output)?;
            }
        }
        Ok(())
    }
}

/// Options that name objects.
const OPTIONS: &[(&str, Noun)] = &[
    ("--router-port", Noun::RouterPort),
    ("--gateway-port", Noun::RouterPort),
    ("--output-port", Noun::RouterPort),
    ("--load-balancer", Noun::LoadBalancer),
    ("--load-balancer-group", Noun::LoadBalancerGroup),
    ("--ha-chassis-group", Noun::HaChassisGroup),
    ("--dhcpv4", Noun::DhcpOptions),
    ("--dhcpv6", Noun::DhcpOptions),
    ("--limits", Noun::Limits),
    ("--chassis", Noun::Chassis),
    ("--requested-chassis", Noun::Chassis),
    ("--additional-chassis", Noun::Chassis),
    ("--logical-port", Noun::SwitchPort),
    ("--port", Noun::SwitchPort),
    ("--parent", Noun::SwitchPort),
    ("--virtual-parent", Noun::SwitchPort),
    ("--from", Noun::SwitchPort),
    ("--in-port", Noun::SwitchPort),
];

/// Kinds of the objects that may be named behind these words; `None`: none are.
fn wanted(words: &[&str]) -> Option<&'static [Noun]> {
    let one = |noun: Noun| Noun::ALL.iter().position(|known| *known == noun).map(|at| &ALL[at..=at]);
    let last = words.last()?;
    if let Some((_, noun)) = OPTIONS.iter().find(|(option, _)| option == last) {
        return one(*noun);
    }
    if *last == "explain" {
        return one(Noun::SwitchPort);
    }
    let (verb, before) = words.split_last()?;
    let noun = Noun::ALL.into_iter().find(|noun| before.last() == Some(&noun.command()))?;
    match *verb {
        "set" | "show" | "del" => one(noun),
        "add" | "list" if !noun.parents().is_empty() => Some(noun.parents()),
        _ => None,
    }
}

/// All kinds, to lend one.
static ALL: [Noun; Noun::ALL.len()] = Noun::ALL;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_come_next_follows_from_the_words_before() {
        let of = |text: &str| wanted(&text.split(' ').collect::<Vec<_>>());
        assert_eq!(of("switch set"), Some(&[Noun::Switch][..]));
        assert_eq!(of("--wait switch-port del"), Some(&[Noun::SwitchPort][..]));
        assert_eq!(of("acl add"), Some(&[Noun::Switch, Noun::PortGroup][..]));
        assert_eq!(of("acl list"), of("acl add"));
        assert_eq!(of("switch set web --load-balancer"), Some(&[Noun::LoadBalancer][..]));
        assert_eq!(of("explain"), Some(&[Noun::SwitchPort][..]));
        for none in ["switch", "switch add", "switch set web", "flow add", "switch list", ""] {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!(wanted(&[]), None);
    }
}
