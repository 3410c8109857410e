//! `lockstep volume adopt-disk`: the metadata of this node's copy learn which disk its backing device is now.

use controlplane::daemons::Door;

use crate::config;
use crate::failure::Failure;
use crate::programs;

pub(crate) fn run(name: &str, confirm: Option<&str>) -> Result<u8, Failure> {
    let path = config::path_of(name)?;
    if confirm != Some(name) {
        return Err(Failure::new(
            "LS4015",
            format!("the name {name} was not repeated"),
            format!(
                "only if all data of {name} are on the disk that `backing` in {} names: `lockstep volume adopt-disk {name} \
                 --confirm {name}`",
                path.display()
            ),
        ));
    }
    let places = programs::places(name);
    // Nobody starts the daemon meanwhile.
    let _turn = programs::turn(&places)?;
    if matches!(places.door(), Door::Open(_)) {
        return Err(Failure::new(
            "LS3021",
            format!("the daemon of {name} runs: it has accepted the disk"),
            format!("nothing is to be done; else `lockstep volume stop {name}` first"),
        ));
    }
    let mut command = programs::mirror();
    command.arg("adopt-disk").arg("--config").arg(&path);
    command.arg("--confirm").arg(name);
    programs::with_run_directory(&mut command);
    let output = command
        .output()
        .map_err(|error| programs::not_found(&error))?;
    if !output.status.success() {
        return Err(failure(name, &String::from_utf8_lossy(&output.stderr)));
    }
    print!("{}", String::from_utf8_lossy(&output.stdout));
    println!("next, if no lockstepd starts its daemon: lockstep volume start {name}");
    Ok(0)
}

/// What `ublk-mirror` says, with its code.
fn failure(name: &str, said: &str) -> Failure {
    match programs::refusal(said) {
        Some(problem) => Failure::from(problem),
        None => Failure::new(
            "LS4008",
            format!("ublk-mirror does not say why {name} got no other disk: {said}"),
            "see that `ublk-mirror` and `lockstep` are of one release",
        ),
    }
}
