//! What to do about each error: one or two sentences for somebody who is in a hurry.

pub(super) const AGAIN: &str = "get a new token (the inviting end shows one, or `lockstep cluster invite` there), and join again: \
     what is there already stays";
pub(super) const CONFIG: &str = "write cluster.toml on this node first (docs/controlplane.md, \"Setting it up\"); nothing was changed";
pub(super) const FILE: &str =
    "run the command as root, and see that the file system has room; then repeat it";
pub(super) const OCCUPIED: &str = "nothing was changed. If it is of an earlier cluster, move it away, or repeat the command with --force";
pub(super) const IN_THE_WAY: &str =
    "nothing was changed. If it is of an earlier cluster, move it away, and repeat the command";
pub(super) const OTHER_WITNESS: &str = "nothing was changed. If the new one shall take its place: stop `lockstepd` on both nodes, then \
     `lockstep cluster invite witness --force` on the node that invites (docs/controlplane.md, \"Another witness\")";
pub(super) const OTHER_KEY: &str = "nothing was changed. If no copy of a volume needs the old key any more, repeat the command with --force: \
     the old key is kept beside it as cluster.key.CLUSTER";
pub(super) const KEY_OF_VOLUMES: &str = "nothing was changed, and --force changes nothing here: only with the old key these copies can be opened. If they \
     are needed, the first node has to use that key (docs/controlplane.md, \"A node was lost\"). If they are not, stop them, move their files \
     out of volumes/, and join with --force";
pub(super) const OLD_REGISTERS: &str = "nothing was changed, and --force changes nothing here. Stop `lockstepd` on both nodes and `lockstepd witness` \
     here (one that runs writes the file again); then move the file away and join again: the nodes report anew what they hold";
pub(super) const NODE_HERE: &str = "nothing was changed. Join as the witness on a third machine; if this one is no node any more, repeat the command with --force";
pub(super) const UNFIT: &str =
    "nothing was changed. Mend it as the message says, or move it away, and repeat the command";
pub(super) const TYPED: &str = "nothing was sent, and no try was counted; type it again";
pub(super) const ANOTHER_TOKEN: &str =
    "take the token that the inviting end shows for this machine; each works once";
pub(super) const TOKEN_INSIDE: &str = "if that is this same machine and its connection was cut: the inviting end soon notices it and says what to do next. \
     If not, somebody else has the token: end the invitation (docs/controlplane.md, \"Who can do what\")";
pub(super) const KEY_IS_OUT: &str = "look at that machine. If it is the right one, `lockstep cluster invite` on the inviting node again, and join there again: \
     what is there already stays. If it is not, somebody else has the key: see docs/controlplane.md, \"Who can do what\"";
pub(super) const CLOSED: &str = "see who tries (the inviting end shows the addresses), then `lockstep cluster invite` there again";
pub(super) const OVER: &str =
    "`lockstep cluster invite` on the first node again; it makes new tokens";
pub(super) const STRANGER: &str = "the token is of an earlier invitation, the address is wrong, or somebody is in between: take address and \
     token from the screen of the inviting end";
pub(super) const UNREACHABLE: &str = "see that `lockstep cluster invite` runs there, that the address is right, and that no firewall is in between";
pub(super) const LISTEN: &str = "another invitation runs, or the address is not of this machine: --listen ADDRESS:PORT names another one";
pub(super) const UNCONFIRMED: &str = "if the inviting end says that this machine has joined, nothing is left to do; else join again with a new token \
     (`lockstep cluster invite` there): what is there already stays";
pub(super) const NO_SUCH_GUEST: &str = "name one of them, with `--node NAME` where it joins; another one is written into cluster.toml first";
pub(super) const OTHER_GUEST: &str =
    "take the token that is shown for this machine, or say with --node which one it is";
pub(super) const WITNESS_TOKEN: &str = "nothing was changed. Take the token that is shown for this node; on the witness leave --node out";
pub(super) const NO_AUTHORITY: &str = "invite on the node on which `lockstep cluster init` was run";
pub(super) const VERSION: &str = "install the same release on both machines";
