//! `lockstep config ...`: the cluster's one file, looked at before `lockstepd` reads it.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use controlplane::config::{Checked, ConfigError, Here, plain, plan, schema};
use nix::unistd::gethostname;
use serde_json::{Value, json};

use crate::cmd::push;
use crate::config::directory;
use crate::failure::Failure;

const CHECK_SCHEMA: &str = "lockstep.config-check/1";
const PLAN_SCHEMA: &str = "lockstep.config-plan/1";
/// Something changes.
const EXIT_CHANGES: u8 = 2;

const CHECK_EXIT_CODES: &str = "Exit codes: 0 lockstepd can use the file (there may be warnings), 1 it cannot, 64 wrong usage.";
const PLAN_EXIT_CODES: &str = "\
Exit codes: 0 nothing changes, 2 something does, 1 one of the files cannot be used,
64 wrong usage. Nothing is changed by this command.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say all that is wrong with a file, and what it means
    #[command(after_help = CHECK_EXIT_CODES)]
    Check {
        /// The file [default: /etc/lockstep/cluster.toml]
        file: Option<PathBuf>,
        /// Look at scripts, files and addresses of this machine as this node [default: its host name]
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what changes with a file, what each change interrupts, and in which order to make it
    #[command(after_help = PLAN_EXIT_CODES)]
    Plan {
        /// The new file [default: /etc/lockstep/cluster.toml, if --against is given]
        #[arg(required_unless_present = "against")]
        file: Option<PathBuf>,
        /// Compare with this file [default: /etc/lockstep/cluster.toml]
        #[arg(long, value_name = "OTHER")]
        against: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// A JSON Schema of the file, for editors
    Schema,
    /// Put a file in force on both nodes, or on none
    #[command(after_help = push::PUSH_EXIT_CODES)]
    Push(push::Push),
    /// Say which file each node goes by, and how a push stands
    #[command(after_help = push::SHOW_EXIT_CODES)]
    Show {
        /// Only the file in force on this node, as it is
        #[arg(long, conflicts_with = "json")]
        text: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Take back a push that is not decided
    Abandon {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// While lockstepd is stopped: let cluster.toml be in force here, whatever was pushed
    Adopt,
}

pub(crate) fn run(command: Command) -> Result<u8, Failure> {
    let default = || directory().join("cluster.toml");
    Ok(match command {
        Command::Check { file, node, json } => {
            let file = file.unwrap_or_else(default);
            check(&file, node, json)
        }
        Command::Plan {
            file,
            against,
            json,
        } => {
            let file = file.unwrap_or_else(default);
            let against = against.unwrap_or_else(default);
            compare(&file, &against, json)
        }
        Command::Schema => {
            print_json(&schema());
            0
        }
        Command::Push(command) => push::push(command)?,
        Command::Show { text, json } => push::show(text, json)?,
        Command::Abandon { json } => push::abandon(json)?,
        Command::Adopt => push::adopt()?,
    })
}

fn print_json(value: &Value) {
    println!("{value:#}");
}

fn check(file: &Path, node: Option<String>, json: bool) -> u8 {
    let checked = Checked::read(file).and_then(|checked| seen_from(checked, node));
    let (checked, node) = match checked {
        Ok(checked) => checked,
        Err(error) => return refuse(&error, CHECK_SCHEMA, json),
    };
    let findings = &checked.findings;
    if json {
        print_json(&json!({
            "schema": CHECK_SCHEMA,
            "file": file.display().to_string(),
            "ok": true,
            "errors": 0,
            "warnings": findings.warnings(),
            "findings": findings.to_json(),
            "node": node.ok(),
            "summary": checked.summary_json(),
        }));
        return 0;
    }
    if findings.warnings() > 0 {
        println!("{}", plain(findings));
    }
    print!("{}", checked.summary());
    match node {
        Ok(node) => {
            println!("this machine, {node}, was looked at for scripts, files and addresses")
        }
        Err(host) => println!(
            "this machine, {host}, is none of the nodes: its scripts, files and addresses were not looked at"
        ),
    }
    println!("{} can be used", file.display());
    0
}

/// With warnings of what does not fit this machine, if it is a node: which one, or its name.
type Seen = (Checked, Result<String, String>);

fn seen_from(mut checked: Checked, node: Option<String>) -> Result<Seen, ConfigError> {
    let host = gethostname().unwrap_or_default();
    let name = node
        .clone()
        .unwrap_or_else(|| host.to_string_lossy().into_owned());
    if checked.cluster.nodes.iter().any(|node| node.name == name) {
        checked.look(&Here::of(&name));
        return Ok((checked, Ok(name)));
    }
    match node {
        // Said so, and wrong.
        Some(node) => Err(checked.not_a_node(&node)),
        None => Ok((checked, Err(name))),
    }
}

fn refuse(error: &ConfigError, schema: &str, json: bool) -> u8 {
    let findings = &error.0;
    if json {
        print_json(&json!({
            "schema": schema,
            "file": findings.path().display().to_string(),
            "ok": false,
            "errors": findings.errors(),
            "warnings": findings.warnings(),
            "findings": findings.to_json(),
        }));
    } else {
        eprint!("{}", plain(findings));
    }
    1
}

fn compare(file: &Path, against: &Path, json: bool) -> u8 {
    let read = |path| Checked::read(path).map(|checked| checked.cluster);
    // The new one first: it is the one that is being written.
    let both = read(file).and_then(|new| Ok((new, read(against)?)));
    let (new, old) = match both {
        Ok(both) => both,
        Err(error) => return refuse(&error, PLAN_SCHEMA, json),
    };
    let place = directory().join("cluster.toml");
    let plan = plan(&old, &new, file, &place);
    if json {
        let mut told = plan.to_json();
        if let Value::Object(map) = &mut told {
            map.insert("schema".to_string(), json!(PLAN_SCHEMA));
            map.insert("ok".to_string(), json!(true));
            map.insert("file".to_string(), json!(file.display().to_string()));
            map.insert("against".to_string(), json!(against.display().to_string()));
        }
        print_json(&told);
    } else if plan.changes.is_empty() {
        println!(
            "nothing changes: {} and {} mean the same",
            file.display(),
            against.display()
        );
    } else {
        let changes = match plan.changes.len() {
            1 => "1 change".to_string(),
            count => format!("{count} changes"),
        };
        println!(
            "{changes} from {} to {}\n",
            against.display(),
            file.display()
        );
        print!("{}", plan.text());
    }
    if plan.changes.is_empty() {
        0
    } else {
        EXIT_CHANGES
    }
}
