//! `lockstep config push`, `show`, `abandon` and `adopt`: one configuration for both nodes.

use std::fs::File;
use std::io::{Read, Write, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use controlplane::config::{Checked, plain};
use controlplane::push::put_aside;
use controlplane_api::config::{
    Abandoned, ConfigShow, NodeConfig, Outcome, PUSH_BYTES_MAX, PUSH_SCHEMA, PushAsk, PushStage,
    Pushed, SHOW_SCHEMA,
};
use controlplane_api::paths::{node_socket, state_directory};
use mirror_core::admin::Problem;
use mirror_core::isolation::utc;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cmd::both_nodes::{Awaited, SHOW_TIMEOUT};
use crate::cmd::volume::status::Form;
use crate::config::directory;
use crate::failure::Failure;
use crate::http::{HttpError, get, get_text, post};
use crate::verdict::Health;

/// Both nodes are asked, and flush files.
const PUSH_TIMEOUT: Duration = Duration::from_secs(120);
/// Something would change, or is not as it should be.
const EXIT_DIFFERS: u8 = 2;
/// Digits of a digest on the screen.
const DIGITS: usize = 12;

pub(crate) const PUSH_EXIT_CODES: &str = "\
Exit codes: 0 in force on both nodes, or it was already; 1 refused, and nothing was changed;
2 --dry-run: it can be pushed, and something changes; 3 nobody can tell, or it is decided and the
time is over: `lockstep config show` says how it stands; 64 wrong usage.";
pub(crate) const SHOW_EXIT_CODES: &str = "\
Exit codes: 0 both nodes go by the same file and nothing is under way, 2 not so, 3 the other node or
this one does not answer.";

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The new file [default: /etc/lockstep/cluster.toml]
    file: Option<PathBuf>,
    /// Only say whether it can be pushed, and what changes
    #[arg(long)]
    dry_run: bool,
    /// Also where somebody changed cluster.toml by hand, or where the nodes go by different files; what was changed is kept beside it
    #[arg(long)]
    replace_edited: bool,
    /// Only if this is in force, by the first digits of `config show`
    #[arg(long, value_name = "DIGEST")]
    replaces: Option<String>,
    /// Wait so long until it is in force on both nodes, seconds
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn push(command: Push) -> Result<u8, Failure> {
    let form = Form::from(command.json);
    let file = command
        .file
        .clone()
        .unwrap_or_else(|| directory().join("cluster.toml"));
    finish(pushed(&command, &file, form), form, PUSH_SCHEMA)
}

/// A refusal as JSON is an answer as well, with its exit code.
pub(crate) fn finish(
    outcome: Result<u8, Failure>,
    form: Form,
    schema: &str,
) -> Result<u8, Failure> {
    match (outcome, form) {
        (Err(failure), Form::Json) => {
            let Failure { problem, exit_code } = failure;
            println!(
                "{:#}",
                json!({"schema": schema, "ok": false, "problem": problem})
            );
            Ok(exit_code)
        }
        (outcome, Form::Screen | Form::Json) => outcome,
    }
}

pub(crate) fn unknown(error: &HttpError) -> Failure {
    Failure {
        problem: error.problem(),
        exit_code: Health::Unknown.exit_code(),
    }
}

fn pushed(command: &Push, file: &Path, form: Form) -> Result<u8, Failure> {
    let ask = PushAsk {
        text: text(file)?,
        replaces: command.replaces.clone(),
        replace_edited: command.replace_edited,
        dry_run: command.dry_run,
    };
    let answer: Result<Pushed, Problem> =
        post("/v1/config/push", &ask, PUSH_TIMEOUT).map_err(|error| undecided(&error))?;
    let said = answer.map_err(refused)?;
    if form == Form::Screen {
        tell(&said, file);
    }
    let exit_code = match said.outcome {
        Outcome::Nothing => 0,
        Outcome::Possible => EXIT_DIFFERS,
        Outcome::Decided => {
            let shown = until(&said, Duration::from_secs(command.timeout), form)?;
            if form == Form::Screen {
                let (one, other) = (&shown.own.node, &shown.peer_name);
                println!("push {} is in force on {one} and {other}", said.number);
            }
            0
        }
    };
    if form == Form::Json {
        println!(
            "{:#}",
            with(&said, "in_force", json!(said.outcome != Outcome::Possible))
        );
    }
    Ok(exit_code)
}

fn with(said: &impl Serialize, key: &str, value: Value) -> Value {
    let mut told = json!(said);
    if let Value::Object(fields) = &mut told {
        fields.insert(key.to_string(), value);
    }
    told
}

/// A refusal. What is not known to be refused has another exit code.
fn refused(problem: Problem) -> Failure {
    let is_unknown = matches!(problem.code.as_str(), "LS6109" | "LS6116");
    let exit_code = if is_unknown {
        Health::Unknown.exit_code()
    } else {
        1
    };
    Failure { problem, exit_code }
}

/// `lockstepd` did not say what came of it.
fn undecided(error: &HttpError) -> Failure {
    let mut failure = unknown(error);
    if !matches!(error, HttpError::NotRunning { .. }) {
        failure.problem.advice =
            "whether it is decided is not known: `lockstep config show` says how it stands"
                .to_string();
    }
    failure
}

/// The file that is pushed.
fn text(file: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(PUSH_BYTES_MAX).unwrap_or(u64::MAX);
    File::open(file)
        .and_then(|opened| opened.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::file(file, "read", &error))?;
    if bytes.len() > PUSH_BYTES_MAX {
        let message = format!("{} has more than {PUSH_BYTES_MAX} bytes", file.display());
        let advice = "see whether it is the right file";
        return Err(Failure::new("LS6115", message, advice));
    }
    // What is wrong with it is shown with its own name and lines.
    let checked = Checked::parse(file, &bytes).map_err(|error| {
        let findings = &error.0;
        let code = findings.list().first().map_or("LS6034", |first| first.code);
        let message = format!("the file cannot be used:\n{}", plain(findings).trim_end());
        Failure::new(code, message, "mend the file; nothing was changed")
    });
    checked.map(drop)?;
    String::from_utf8(bytes).map_err(|error| {
        let message = format!("{}: {error}", file.display());
        Failure::new("LS6034", message, "save the file as UTF-8")
    })
}

fn tell(said: &Pushed, file: &Path) {
    for warning in &said.warnings {
        let warning: String = warning.chars().filter(|c| !c.is_control()).collect();
        println!("warning {warning}");
    }
    match said.outcome {
        Outcome::Nothing => {
            println!(
                "nothing to push: {} is in force on both nodes",
                file.display()
            );
            return;
        }
        Outcome::Possible => println!(
            "{} can be pushed, as number {}",
            file.display(),
            said.number
        ),
        Outcome::Decided => println!("push {} is decided on both nodes", said.number),
    }
    if said.changes.is_empty() {
        println!("  nothing that lockstepd goes by changes");
    }
    for change in &said.changes {
        println!("  {}: {}", change.key, change.what);
    }
}

/// Whether a node goes by it, and has nothing more to do.
fn has(node: &NodeConfig, said: &Pushed) -> bool {
    let (number, digest) = (said.number, &said.digest);
    // A later push may have come meanwhile.
    node.number > number
        || (node.number == number
            && node.digest == *digest
            && node.runs == *digest
            && node.push.is_none())
}

fn until(said: &Pushed, patience: Duration, form: Form) -> Result<ConfigShow, Failure> {
    let awaited = Awaited {
        path: "/v1/config",
        patience,
        form,
        silent: "lockstepd here begins anew",
        undecided,
    };
    let going = |shown: &ConfigShow| {
        let mut nodes = [Some(&shown.own), shown.peer.as_ref()].into_iter();
        let there = nodes.all(|node| node.is_some_and(|node| has(node, said)));
        (!there).then(|| waits_for(shown, said))
    };
    let late = |last: &str| {
        let message = format!(
            "push {} is decided, and after {} s not in force on both: {last}",
            said.number,
            patience.as_secs()
        );
        let advice = "it goes on by itself; `lockstep config show` says how it stands";
        let mut failure = Failure::new("LS6117", message, advice);
        failure.exit_code = Health::Unknown.exit_code();
        failure
    };
    awaited.until(going, late)
}

fn waits_for(shown: &ConfigShow, said: &Pushed) -> String {
    let stuck = shown
        .own
        .push
        .as_ref()
        .and_then(|push| push.problem.as_ref());
    if let Some(problem) = stuck.or(shown.peer_problem.as_ref()) {
        return format!("{} {}", problem.code, problem.message);
    }
    let name = match &shown.peer {
        Some(peer) if has(peer, said) => &shown.own.node,
        Some(_) | None => &shown.peer_name,
    };
    format!("waits for {name}")
}

/// A reader that went away (`| head`) has seen enough.
fn print(text: &str) {
    let _ = stdout().write_all(text.as_bytes());
}

/// `lockstep config show`.
pub(crate) fn show(text: bool, json: bool) -> Result<u8, Failure> {
    if text {
        let text = get_text("/v1/config/text", SHOW_TIMEOUT).map_err(|error| unknown(&error))?;
        print(&text);
        return Ok(0);
    }
    let form = Form::from(json);
    let shown = get::<ConfigShow>("/v1/config", SHOW_TIMEOUT).map_err(|error| unknown(&error));
    let outcome = shown.map(|shown| {
        match form {
            Form::Json => print(&format!("{:#}\n", json!(shown))),
            Form::Screen => print(&screen(&shown)),
        }
        verdict(&shown)
    });
    finish(outcome, form, SHOW_SCHEMA)
}

fn verdict(shown: &ConfigShow) -> u8 {
    let Some(peer) = &shown.peer else {
        return Health::Unknown.exit_code();
    };
    let nodes = [&shown.own, peer];
    let settled = |node: &&NodeConfig| {
        node.push.is_none() && !node.edited && node.runs == node.digest && node.set_aside.is_empty()
    };
    if shown.own.digest == peer.digest && nodes.iter().all(settled) {
        0
    } else {
        EXIT_DIFFERS
    }
}

fn short(digest: &str) -> &str {
    digest.get(..DIGITS).unwrap_or(digest)
}

fn screen(shown: &ConfigShow) -> String {
    let mut lines = Vec::new();
    let same = shown
        .peer
        .as_ref()
        .map(|peer| peer.digest == shown.own.digest);
    lines.push(match same {
        Some(true) => "both nodes go by the same file".to_string(),
        Some(false) => "THE NODES GO BY DIFFERENT FILES".to_string(),
        None => format!("what {} goes by is not known", shown.peer_name),
    });
    node(&shown.own, &mut lines);
    if let Some(peer) = &shown.peer {
        node(peer, &mut lines);
    }
    if let Some(problem) = &shown.peer_problem {
        lines.push(format!(
            "{}: {} {}",
            shown.peer_name, problem.code, problem.message
        ));
        lines.push(format!("  > {}", problem.advice));
    }
    let mut text: String = lines.join("\n");
    text.retain(|c| !c.is_control() || c == '\n');
    text.push('\n');
    text
}

fn node(node: &NodeConfig, lines: &mut Vec<String>) {
    let since = node
        .since_unix_s
        .map(|since| format!(", since {}", utc(since)));
    let origin = match node.number {
        0 => "never pushed: cluster.toml as it was when lockstepd started, or when the first push began".to_string(),
        number => format!("push {number}{}", since.unwrap_or_default()),
    };
    let (name, digest) = (&node.node, short(&node.digest));
    lines.push(format!("{name}: {digest}  {origin}"));
    if node.runs != node.digest {
        lines.push(format!("  lockstepd still goes by {}", short(&node.runs)));
    }
    if node.edited {
        let file = node.file.as_deref().map_or("not readable", short);
        lines.push(format!(
            "  ! LS6111 cluster.toml is another file ({file}), and not in force"
        ));
        lines.push(format!(
            "    > on {name}: lockstep config show --text | diff - /etc/lockstep/cluster.toml"
        ));
    }
    for aside in &node.set_aside {
        lines.push(format!(
            "  ! LS6108 changed by hand, and replaced by a push: {aside}"
        ));
    }
    let Some(push) = &node.push else { return };
    let stage = match push.stage {
        PushStage::Asking => "is being asked for",
        PushStage::Promised => "is promised, and not decided: LS6112",
        PushStage::Decided => "is decided, and not in force on both yet",
    };
    let since = push
        .since_unix_s
        .map(|since| format!(", since {}", utc(since)));
    lines.push(format!(
        "  push {} ({}), driven by {}, {stage}{}",
        push.number,
        short(&push.digest),
        push.by,
        since.unwrap_or_default()
    ));
    if let Some(problem) = &push.problem {
        lines.push(format!("  ! {} {}", problem.code, problem.message));
        lines.push(format!("    > {}", problem.advice));
    }
}

/// `lockstep config abandon`.
pub(crate) fn abandon(json: bool) -> Result<u8, Failure> {
    let form = Form::from(json);
    let said = post::<_, Abandoned>("/v1/config/abandon", &json!({}), SHOW_TIMEOUT);
    let outcome = said.map_err(|error| unknown(&error)).and_then(|said| {
        let said = said.map_err(refused)?;
        match form {
            Form::Screen => println!("{}", said.message),
            Form::Json => println!("{:#}", json!(said)),
        }
        Ok(0)
    });
    finish(outcome, form, PUSH_SCHEMA)
}

/// `lockstep config adopt`.
pub(crate) fn adopt() -> Result<u8, Failure> {
    if std::os::unix::net::UnixStream::connect(node_socket()).is_ok() {
        let advice =
            "stop lockstepd on both nodes, adopt on both, then start it; services go on meanwhile";
        return Err(Failure::new(
            "LS6118",
            "lockstepd runs on this node",
            advice,
        ));
    }
    let file = directory().join("cluster.toml");
    text(&file)?;
    let state = state_directory();
    let aside = put_aside(&state).map_err(|error| Failure::file(&state, "change", &error))?;
    match aside {
        None => println!(
            "no push is remembered here: {} is in force anyway",
            file.display()
        ),
        Some(aside) => println!(
            "{} is in force here when lockstepd starts; what was pushed is kept as {}",
            file.display(),
            aside.display()
        ),
    }
    println!(
        "see that the other node has the same file, and say `lockstep config adopt` there too"
    );
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, number: u64, digest: &str) -> NodeConfig {
        NodeConfig {
            node: name.to_string(),
            number,
            digest: digest.to_string(),
            since_unix_s: Some(0),
            runs: digest.to_string(),
            file: Some(digest.to_string()),
            edited: false,
            set_aside: Vec::new(),
            push: None,
        }
    }

    fn shown(own: NodeConfig, peer: Option<NodeConfig>) -> ConfigShow {
        ConfigShow {
            schema: SHOW_SCHEMA.to_string(),
            ok: true,
            own,
            peer_name: "node2".to_string(),
            peer,
            peer_problem: None,
        }
    }

    #[test]
    fn the_exit_code_tells_whether_both_are_the_same_and_nothing_is_under_way() {
        let one = || node("node1", 3, "aa");
        assert_eq!(verdict(&shown(one(), Some(node("node2", 3, "aa")))), 0);
        assert_eq!(verdict(&shown(one(), Some(node("node2", 3, "bb")))), 2);
        assert_eq!(verdict(&shown(one(), None)), 3);
        let edited = NodeConfig {
            edited: true,
            ..node("node2", 3, "aa")
        };
        let told = shown(one(), Some(edited));
        assert_eq!(verdict(&told), 2);
        let text = screen(&told);
        assert!(
            text.contains("LS6111") && text.contains("| diff -"),
            "{text}"
        );
    }

    #[test]
    fn a_push_is_over_when_both_run_it() {
        let said = Pushed {
            schema: PUSH_SCHEMA.to_string(),
            ok: true,
            outcome: Outcome::Decided,
            number: 3,
            digest: "aa".to_string(),
            changes: Vec::new(),
            warnings: Vec::new(),
        };
        assert!(has(&node("node1", 3, "aa"), &said));
        assert!(has(&node("node1", 4, "cc"), &said), "a later one");
        assert!(!has(&node("node1", 2, "aa"), &said));
        let before = NodeConfig {
            runs: "00".to_string(),
            ..node("node1", 3, "aa")
        };
        assert!(!has(&before, &said), "it has not begun anew yet");
        let told = shown(node("node1", 3, "aa"), Some(node("node2", 2, "bb")));
        assert_eq!(waits_for(&told, &said), "waits for node2");
    }
}
