//! An authenticated peer that may send anything: after an honest handshake arbitrary frames go into a
//! [`Volume`], mixed with time, disks, an application and an operator.
//!
//! `shell` judges what the core asks for; here is the peer and the script that the input is.

mod shell;

use std::time::Duration;

use mirror_core::admin::{Command, Keep};
use mirror_core::auth::{End, proof};
use mirror_core::disk::{ActivityFound, ActivityRecord, BitmapPage, Metadata, PAGE_WORDS};
use mirror_core::event::{CloseReason, Event, RequestKind};
use mirror_core::keys::Keys;
use mirror_core::limits::HOT_EXTENTS_DEFAULT;
use mirror_core::rejoin::{Side, Verdict, decide};
use mirror_core::types::{
    CopyId, Epoch, Errno, Incarnation, Instant, NodeId, NodeSet, SECTOR_BYTES, SectorRange,
    SessionId,
};
use mirror_core::view::View;
use mirror_core::volume::{DeviceAtStart, Settings, Volume};
use mirror_core::wire::{
    Accept, Auth, Frame, FrameKind, Grow, GrowDone, GrowStep, Hello, MARKS_WORDS, Marks,
    PROTOCOL_VERSION, Propose, Purpose, Refused, RefusedCode, State, decode_header, encode_header,
};

use crate::input::{EDGES, Input, patch};
use crate::samples::{self, KEY, KINDS, LEASE_MS, SIZE_SECTORS, node};
use shell::Shell;

/// Steps of a script.
const STEPS_MAX: usize = 200;

/// The settings of a node.
pub fn settings(me: NodeId, peer: NodeId) -> Settings {
    Settings {
        volume_name: samples::name(),
        node: me,
        peer,
        node_name: "here".to_string(),
        peer_name: "there".to_string(),
        keys: Keys::first(&KEY),
        boot: samples::boot(me),
        incarnation: Incarnation(2),
        seed: [9; 32],
        keepalive_interval: Duration::from_millis(500),
        link_timeout: Duration::from_millis(3000),
        disk_timeout: Duration::from_millis(45_000),
        copy_retry: Duration::from_secs(30),
        read_lease: Duration::from_millis(LEASE_MS),
        hot_extents_max: HOT_EXTENTS_DEFAULT.min(6),
    }
}

/// The peer's end of the present connection.
#[derive(Debug)]
struct Line {
    session: SessionId,
    /// What the volume said of itself.
    theirs: Option<State>,
    ours: State,
    /// The last view that was proposed or agreed on.
    view: View,
    /// Ids of frames that wait for an answer.
    asked: Vec<Frame>,
    /// A proposal that waits for an answer.
    proposed: Option<Propose>,
}

#[derive(Debug)]
struct Peer {
    shell: Shell,
    me: NodeId,
    line: Option<Line>,
    sessions: u64,
    commands: u64,
    state: State,
}

/// The script that the input is.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mut peer = Peer::new(input.byte(), &mut input);
    peer.connect(&mut input);
    for _ in 0..STEPS_MAX {
        if input.is_empty() || peer.shell.ended {
            break;
        }
        peer.step(&mut input);
    }
    peer.hang_up(CloseReason::Lost);
    peer.shell.check_end();
}

impl Peer {
    fn new(choice: u8, input: &mut Input<'_>) -> Self {
        let them = node(choice / KINDS % 2);
        let me = node(1 - them.number());
        let superblock = samples::superblock(choice, them);
        let live = superblock.view.active == Some(them);
        let marked = u64::from(input.byte());
        let page = BitmapPage {
            peer: me,
            page: 0,
            words: core::array::from_fn(|word| if word < PAGE_WORDS / 8 { marked } else { 0 }),
        };
        let metadata = Metadata {
            superblock: superblock.clone(),
            activity: ActivityFound::Known(ActivityRecord {
                sequence: 3,
                extents: vec![0, 5],
            }),
            bitmap: vec![Ok(page)],
        };
        let now = Instant::from_nanos(5_000_000_000);
        let device = if live {
            DeviceAtStart::Recovered
        } else {
            DeviceAtStart::None
        };
        let volume = Volume::new(settings(them, me), metadata, device, now);
        let kind = samples::counterpart(choice);
        Self {
            shell: Shell::new(volume, superblock, live, now),
            me,
            line: None,
            sessions: 0,
            commands: 0,
            state: samples::state(&samples::superblock(kind, me)),
        }
    }

    fn them(&self) -> NodeId {
        node(1 - self.me.number())
    }

    // --- the honest part ----------------------------------------------------------------------

    fn connect(&mut self, input: &mut Input<'_>) {
        self.hang_up(CloseReason::Lost);
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let dialled = self.shell.dials();
        self.shell.open.insert(session);
        self.shell.sent.clear();
        self.shell.feed(Event::SessionOpened { session, dialled });
        let Some(hello) = self.shell.sent.pop_front().map(|sent| sent.body) else {
            return;
        };
        let Ok(hello) = <[u8; 128]>::try_from(hello) else {
            return;
        };
        let mut ours = Hello::decode(&hello).unwrap_or_else(|error| panic!("{error}"));
        (ours.node, ours.peer) = (self.me, self.them());
        ours.nonce = [3; 32];
        (ours.version_min, ours.version_max) = (1, PROTOCOL_VERSION);
        let ours = ours.encode();
        self.line = Some(Line {
            session,
            theirs: None,
            ours: self.state,
            view: self.state.view,
            asked: Vec::new(),
            proposed: None,
        });
        self.send(FrameKind::Hello, Epoch(0), &ours);
        let proof = if dialled {
            proof(&KEY, End::Listener, &hello, &ours)
        } else {
            proof(&KEY, End::Dialler, &ours, &hello)
        };
        self.send(FrameKind::Auth, Epoch(0), &Auth { proof }.encode());
        self.shell.settle();
        self.listen();
        let mut state = self.state.encode();
        for _ in 0..input.below(4) {
            patch(input, &mut state);
        }
        if let (Ok(state), Some(line)) = (State::decode(&state), self.line.as_mut()) {
            line.ours = state;
        }
        self.send(FrameKind::State, Epoch(0), &state);
        self.shell.settle();
        self.listen();
        if input.byte() & 7 != 7 {
            self.come_together();
        }
    }

    /// Agrees on a view, whoever leads.
    fn come_together(&mut self) {
        let Some(line) = self.line.as_ref() else {
            return;
        };
        let Some(theirs) = line.theirs else { return };
        let verdict = decide(
            Side {
                node: self.me,
                state: &line.ours,
            },
            Side {
                node: self.them(),
                state: &theirs,
            },
        );
        let insync = match verdict {
            Verdict::Equal { leader } if leader == self.me => {
                NodeSet::only(self.me).with(self.them())
            }
            Verdict::Copy { source, .. } | Verdict::Apart { source, .. } if source == self.me => {
                NodeSet::only(self.me)
            }
            Verdict::Equal { .. } | Verdict::Copy { .. } | Verdict::Apart { .. } => {
                return self.accept(false);
            }
            Verdict::Refuse(_) => return,
        };
        let ours = line.ours;
        let epoch = theirs.view.epoch.max(theirs.sealed).max(ours.view.epoch).0 + 1;
        let mut view = samples::view(epoch, None, insync);
        if ours.flags.serving {
            view.active = Some(self.me);
        }
        let propose = Propose {
            view,
            purpose: Purpose::Settle,
            copy_id: CopyId([0x67; 16]),
            volume_id: ours.volume_id,
        };
        self.send(FrameKind::Propose, view.epoch, &propose.encode());
        self.shell.settle();
        self.listen();
        if let Some(line) = self.line.as_mut() {
            line.view = view;
        }
    }

    fn accept(&mut self, refused: bool) {
        let Some(propose) = self.line.as_mut().and_then(|line| line.proposed.take()) else {
            return;
        };
        if let Some(line) = self.line.as_mut() {
            line.view = propose.view;
        }
        let view_id = propose.view.id;
        let body = Accept { view_id, refused }.encode();
        self.send(FrameKind::Accept, propose.view.epoch, &body);
    }

    fn send(&mut self, kind: FrameKind, epoch: Epoch, body: &[u8]) {
        self.send_frame(Frame::new(kind, epoch, 0), body);
    }

    /// Sends a frame if its header is one; the shell would throw the others away.
    fn send_frame(&mut self, mut frame: Frame, body: &[u8]) {
        let Some(session) = self.line.as_ref().map(|line| line.session) else {
            return;
        };
        if !frame.kind.has_payload() {
            frame.length_bytes = u32::try_from(body.len()).unwrap_or(0);
        }
        let Ok((frame, _)) = decode_header(&encode_header(&frame, 0)) else {
            return;
        };
        let body = if frame.kind.has_body() { body } else { &[] };
        self.shell.receive(session, frame, body);
        self.listen();
    }

    /// Takes note of what the volume says.
    fn listen(&mut self) {
        while let Some(sent) = self.shell.sent.pop_front() {
            let Some(line) = self.line.as_mut() else {
                continue;
            };
            if sent.session != line.session {
                continue;
            }
            match sent.frame.kind {
                FrameKind::State => line.theirs = State::decode(&sent.body).ok(),
                FrameKind::Propose => line.proposed = Propose::decode(&sent.body).ok(),
                _ => line.asked.push(sent.frame),
            }
        }
        let closed = self.line.as_ref().map(|line| line.session);
        if closed.is_some_and(|session| self.shell.closing.contains(&session)) {
            self.hang_up(CloseReason::Local);
        }
    }

    fn hang_up(&mut self, reason: CloseReason) {
        if let Some(Line { session, .. }) = self.line.take() {
            self.shell.open.remove(&session);
            self.shell.closing.remove(&session);
            self.shell.feed(Event::SessionClosed { session, reason });
        }
    }

    // --- the script ---------------------------------------------------------------------------

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 24 {
            0..8 => self.any_frame(input),
            8 | 9 => self.answer(input),
            10 => self.accept(false),
            11 => self.accept(input.byte() & 1 == 0),
            12 | 13 => self.pass_time(input),
            14 => self.shell.disk_ends(usize::from(input.byte()), Ok(())),
            15 => {
                let errno = Errno::EIO;
                self.shell.disk_ends(usize::from(input.byte()), Err(errno));
            }
            16 => self.shell.metadata_ends(),
            17 => self.shell.settle(),
            18 => self.shell.device_answers(input.byte() & 1 == 0),
            19 | 20 => self.application(input),
            21 => self.operator(input),
            22 => self.connect(input),
            _ if input.byte() == 0xff => self.shell.metadata_fails(),
            _ => self.hang_up(CloseReason::Garbage),
        }
        self.listen();
    }

    fn pass_time(&mut self, input: &mut Input<'_>) {
        let times = [0, 1, 100, 500, 1000, 2100, 3000, 6000];
        let millis = times[input.below(times.len())];
        self.shell.now = self.shell.now + Duration::from_millis(millis);
        self.shell.feed(Event::Tick);
    }

    fn application(&mut self, input: &mut Input<'_>) {
        let kinds = [
            RequestKind::Write,
            RequestKind::Read,
            RequestKind::Flush,
            RequestKind::Discard,
            RequestKind::WriteZeroes,
        ];
        let kind = kinds[input.below(kinds.len())];
        let range = match kind {
            RequestKind::Flush => SectorRange::new(0, 0),
            _ => SectorRange::new(
                u64::from(input.short()) % SIZE_SECTORS,
                u32::from(input.byte()) + 1,
            ),
        };
        self.shell.request(kind, range);
    }

    fn operator(&mut self, input: &mut Input<'_>) {
        let byte = input.byte();
        let command = match (byte, byte % 8) {
            (0xff, _) => Command::Resolve {
                discard: "here".to_string(),
                confirm: "data".to_string(),
                keep: Keep::No,
            },
            (0xfe, _) => Command::Force {
                confirm: "data".to_string(),
            },
            (0xf0, _) => Command::Isolate { now_unix_s: 1 },
            (0xf8, _) => Command::Attach { force: true },
            (_, 0..3) => Command::Activate,
            (_, 3) => Command::Deactivate { force: false },
            (_, 4) => Command::Grow { size_bytes: None },
            (_, 5) => Command::Deactivate { force: true },
            (_, 6) => Command::Takeover {
                confirm: "there is off".to_string(),
            },
            _ => Command::Stop,
        };
        self.commands += 1;
        self.shell.command(self.commands, command);
    }

    /// Answers something that was asked, well or badly.
    fn answer(&mut self, input: &mut Input<'_>) {
        let choice = usize::from(input.byte());
        let status = i32::from(input.byte() == 0xff);
        let Some(line) = self.line.as_mut() else {
            return;
        };
        if line.asked.is_empty() {
            return;
        }
        let asked = line.asked.remove(choice % line.asked.len());
        let id = asked.id;
        let epoch = line.view.epoch;
        let kind = match asked.kind {
            FrameKind::Read => FrameKind::ReadDone,
            FrameKind::CopyWrite => FrameKind::CopyDone,
            FrameKind::Ping => FrameKind::Pong,
            FrameKind::MarksWanted => {
                let body = marks(id).encode();
                return self.send(FrameKind::Marks, epoch, &body);
            }
            _ => FrameKind::Done,
        };
        let mut frame = Frame::new(kind, epoch, id);
        frame.status = status;
        if kind == FrameKind::ReadDone {
            frame.range = asked.range;
            let bytes = if status == 0 { asked.range.bytes() } else { 0 };
            frame.length_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        }
        self.send_frame(frame, &[]);
    }

    fn any_frame(&mut self, input: &mut Input<'_>) {
        let Some(line) = self.line.as_ref() else {
            return self.connect(input);
        };
        let kind = KINDS_OF_FRAMES[input.below(KINDS_OF_FRAMES.len())];
        let epoch = match input.byte() % 8 {
            0..5 => line.view.epoch.0,
            5 => line.view.epoch.0.wrapping_add(1),
            6 => self.shell.superblock.view.epoch.0,
            _ => EDGES[input.below(EDGES.len())],
        };
        let id = match input.byte() % 4 {
            0 => u64::from(input.byte()),
            1 => EDGES[input.below(EDGES.len())],
            2 => u64::MAX - u64::from(input.byte() % 4),
            _ => input.long(),
        };
        let mut frame = Frame::new(kind, Epoch(epoch), id);
        frame.flags = u16::from(input.byte());
        if input.byte() & 0xf0 == 0xf0 {
            frame.status = i32::from(input.short());
        }
        let ranged = matches!(
            kind,
            FrameKind::Discard | FrameKind::WriteZeroes | FrameKind::Read
        );
        if ranged || kind.has_payload() {
            frame.range = range(input);
        } else if kind == FrameKind::Ping {
            frame.range.start = EDGES[input.below(EDGES.len())];
        }
        if kind.has_payload() {
            let bytes = u64::from(frame.range.count) * SECTOR_BYTES;
            frame.length_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        }
        if kind == FrameKind::ReadDone && frame.status != 0 {
            frame.length_bytes = 0;
        }
        let mut body = self.good_body(kind, input);
        for _ in 0..input.byte() % 4 {
            patch(input, &mut body);
        }
        self.send_frame(frame, &body);
    }

    fn good_body(&self, kind: FrameKind, input: &mut Input<'_>) -> Vec<u8> {
        let Some(line) = self.line.as_ref() else {
            return Vec::new();
        };
        match kind {
            FrameKind::Hello => vec![0; 128],
            FrameKind::Auth => vec![0; 32],
            FrameKind::Refused => Refused {
                code: RefusedCode::Busy,
                ours: 0,
                yours: 0,
            }
            .encode()
            .to_vec(),
            FrameKind::State => line.ours.encode().to_vec(),
            FrameKind::Propose => self.proposal(line, input).encode().to_vec(),
            FrameKind::Accept => Accept {
                view_id: line
                    .proposed
                    .map_or(line.view.id, |propose| propose.view.id),
                refused: false,
            }
            .encode()
            .to_vec(),
            FrameKind::Marks => marks(u64::from(input.byte())).encode().to_vec(),
            FrameKind::Grow => Grow {
                step: grow_step(input),
                from_sectors: SIZE_SECTORS,
                to_sectors: SIZE_SECTORS + u64::from(input.short()) % SIZE_SECTORS,
            }
            .encode()
            .to_vec(),
            FrameKind::GrowDone => GrowDone {
                step: grow_step(input),
                refused: None,
                room_sectors: 2 * SIZE_SECTORS,
            }
            .encode()
            .to_vec(),
            FrameKind::Evidence => samples::evidence(&self.shell.superblock).encode().to_vec(),
            _ => Vec::new(),
        }
    }

    /// What a peer could propose now.
    fn proposal(&self, line: &Line, input: &mut Input<'_>) -> Propose {
        let purposes = [
            Purpose::Settle,
            Purpose::Activate,
            Purpose::Deactivate,
            Purpose::Leave,
            Purpose::Widen,
            Purpose::Diskless,
        ];
        let purpose = purposes[input.below(purposes.len())];
        let both = NodeSet::only(self.me).with(self.them());
        let now = self.shell.superblock.view;
        let (active, insync) = match purpose {
            Purpose::Settle => (now.active, now.insync),
            Purpose::Activate => (Some(self.me), now.insync),
            Purpose::Deactivate => (None, now.insync),
            Purpose::Leave => (now.active, NodeSet::only(self.me)),
            Purpose::Widen => (now.active, both),
            Purpose::Diskless => (now.active, NodeSet::only(self.them())),
        };
        let newest = now.epoch.max(line.view.epoch).0;
        Propose {
            view: samples::view(newest.saturating_add(1), active, insync),
            purpose,
            copy_id: CopyId([0x68; 16]),
            volume_id: line.ours.volume_id,
        }
    }
}

const KINDS_OF_FRAMES: [FrameKind; 23] = [
    FrameKind::Write,
    FrameKind::CopyWrite,
    FrameKind::Discard,
    FrameKind::WriteZeroes,
    FrameKind::Flush,
    FrameKind::Done,
    FrameKind::CopyDone,
    FrameKind::Propose,
    FrameKind::Accept,
    FrameKind::MarksWanted,
    FrameKind::Marks,
    FrameKind::Leave,
    FrameKind::Ping,
    FrameKind::Pong,
    FrameKind::State,
    FrameKind::Hello,
    FrameKind::Auth,
    FrameKind::Refused,
    FrameKind::Grow,
    FrameKind::GrowDone,
    FrameKind::Isolate,
    FrameKind::Read,
    FrameKind::ReadDone,
];

fn grow_step(input: &mut Input<'_>) -> GrowStep {
    match input.byte() % 4 {
        0 => GrowStep::Measure,
        1 => GrowStep::Prepare,
        2 => GrowStep::Commit,
        _ => GrowStep::Cancel,
    }
}

fn marks(first_word: u64) -> Marks {
    Marks {
        first_word: first_word.min(1 << 41),
        next_word: None,
        block_sectors: 8,
        words: [0x11; MARKS_WORDS],
    }
}

fn range(input: &mut Input<'_>) -> SectorRange {
    let start = match input.byte() % 4 {
        0 | 1 => u64::from(input.byte()) * 8,
        2 => SIZE_SECTORS - u64::from(input.byte() % 16),
        _ => EDGES[input.below(EDGES.len())],
    };
    let count = match input.byte() % 4 {
        0 | 1 => u32::from(input.byte() % 16) + 1,
        2 => u32::from(input.short()),
        _ => u32::MAX - u32::from(input.byte()),
    };
    SectorRange::new(start, count)
}
