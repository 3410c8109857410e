use super::*;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};

use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

const CODE: &str = "LS0000";

/// Nobody reads it before it is let go.
struct Stuck(Receiver<()>, Sender<Vec<u8>>);

impl Write for Stuck {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        let _ = self.1.send(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file system with so much room, as somebody else sees it who may make more.
#[derive(Clone, Default)]
struct Disk(Arc<std::sync::Mutex<(usize, Vec<u8>)>>);

impl Disk {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("whole").1.clone()).expect("text")
    }

    fn make_room(&self, bytes: usize) {
        self.0.lock().expect("whole").0 += bytes;
    }
}

impl Write for Disk {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.lock().expect("whole");
        let count = line.len().min(disk.0);
        if count == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        disk.0 -= count;
        disk.1.extend_from_slice(&line[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Codes of the events that other layers of this process heard of.
static HEARD: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());

/// A layer beside the log's, as `lockstepd` has one for its events.
struct Hears;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Hears {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Code(Option<String>);
        impl Visit for Code {
            fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}

            fn record_str(&mut self, field: &Field, value: &str) {
                if field.name() == "code" {
                    self.0 = Some(value.to_string());
                }
            }
        }
        let mut code = Code(None);
        event.record(&mut code);
        HEARD.lock().expect("whole").extend(code.0);
    }
}

/// The log of this process, on that disk, and the layer beside it.
fn log_of_the_process() -> &'static Disk {
    static DISK: OnceLock<Disk> = OnceLock::new();
    DISK.get_or_init(|| {
        let disk = Disk::default();
        disk.make_room(1 << 20);
        let (lines, ending) = begin(disk.clone(), CODE, || {}).expect("a thread");
        std::mem::forget(ending);
        let log = tracing_subscriber::fmt::layer()
            .with_writer(lines)
            .with_ansi(false)
            .log_internal_errors(false);
        tracing_subscriber::registry().with(log).with(Hears).init();
        disk
    })
}

fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !reached() {
        assert!(Instant::now() < until, "not reached: {what}");
        thread::yield_now();
    }
}

fn dropped(lines: &Lines) -> u64 {
    lines.counts.dropped.load(Ordering::Relaxed)
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up_and_tells_what_is_lost() {
    let (go, held) = channel();
    let (told, written) = channel();
    let (mut lines, ending) = begin(Stuck(held, told), CODE, || {}).expect("a thread");
    for number in 0..3 * LINES_MAX {
        lines
            .write_all(format!("{number}\n").as_bytes())
            .expect("taken");
    }
    let lost = dropped(&lines);
    let least = u64::try_from(2 * LINES_MAX - 1).expect("small");
    assert!(lost >= least, "{lost}");
    drop(go);
    assert_eq!(written.recv().expect("written"), b"0\n");
    let told = String::from_utf8(written.recv().expect("written")).expect("text");
    assert!(
        told.contains(CODE) && told.contains(&format!("lost={lost}")),
        "{told}"
    );
    // There is room again.
    assert_eq!(written.iter().take(LINES_MAX - 1).count(), LINES_MAX - 1);
    lines.write_all(b"last\n").expect("taken");
    drop(ending);
    assert_eq!(written.iter().last().expect("written"), b"last\n");
    assert_eq!(dropped(&lines), 0);
}

#[test]
fn what_a_full_disk_did_not_take_is_told_when_there_is_room_again() {
    let disk = Disk::default();
    let (mut lines, ending) = begin(disk.clone(), CODE, || {}).expect("a thread");
    disk.make_room(b"first\nsec".len());
    for line in ["first\n", "second\n", "third\n", "fourth\n"] {
        lines.write_all(line.as_bytes()).expect("taken");
    }
    wait_until("three are lost", || dropped(&lines) == 3);
    assert_eq!(disk.text(), "first\nsec");
    disk.make_room(1 << 20);
    lines.write_all(b"fifth\n").expect("taken");
    drop(ending);
    let text = disk.text();
    let rest = text.strip_prefix("first\nsec\nfifth\n").expect(&text);
    assert!(rest.contains(CODE) && rest.contains("lost=3"), "{text}");
    assert_eq!(rest.lines().count(), 1, "once: {text}");
}

#[test]
fn a_log_that_can_be_written_again_says_so_though_nothing_happens() {
    let disk = Disk::default();
    let (mut lines, _ending) = begin(disk.clone(), CODE, || {}).expect("a thread");
    lines.write_all(b"lost\n").expect("taken");
    wait_until("it is lost", || dropped(&lines) == 1);
    disk.make_room(1 << 20);
    wait_until("it is told", || disk.text().contains("lost=1"));
}

/// `lockstepd` keeps so many events and no more: a standard error that is gone for good must not drive out what happened.
#[test]
fn other_layers_hear_once_of_a_loss_and_not_before_it_is_written() {
    const LOSS: &str = "LS0001";
    let of_the_process = log_of_the_process();
    let heard = || {
        let heard = HEARD.lock().expect("whole");
        heard.iter().filter(|code| *code == LOSS).count()
    };
    let disk = Disk::default();
    let mut writer = Writer {
        into: disk.clone(),
        code: LOSS,
        counts: Arc::default(),
        torn: false,
    };
    let lost = |writer: &Writer<Disk>| writer.counts.dropped.load(Ordering::Relaxed);
    writer.counts.dropped.store(7, Ordering::Relaxed);
    for _ in 0..3 {
        writer.tell_dropped();
        assert_eq!((lost(&writer), heard()), (7, 0));
    }
    // It finds room for a part of its line.
    disk.make_room(10);
    writer.tell_dropped();
    assert_eq!((lost(&writer), heard()), (7, 0));
    disk.make_room(1 << 20);
    for _ in 0..3 {
        writer.tell_dropped();
        assert_eq!((lost(&writer), heard()), (0, 1));
    }
    assert_eq!(disk.text().matches(LOSS).count(), 1, "{}", disk.text());
    // As the log's own layer writes it, which has nothing of this.
    tracing::warn!(code = "LS0002", lost = 7_u64, "{DROPPED}");
    flush();
    wait_until("it is written", || of_the_process.text().contains("LS0002"));
    let of_the_process = of_the_process.text();
    assert!(!of_the_process.contains(LOSS), "{of_the_process}");
    let after_the_time = |text: &str| {
        let line = text.lines().last().expect("a line").to_string();
        let (time, rest) = line.split_once(' ').expect("a time");
        assert!(time.ends_with('Z'), "{line}");
        rest.replace("::tests:", ":").replace("LS0002", LOSS)
    };
    assert_eq!(
        after_the_time(&disk.text()),
        after_the_time(&of_the_process)
    );
}

#[test]
fn lines_that_wait_have_so_many_bytes_at_most() {
    let (go, held) = channel();
    let (told, written) = channel();
    let (mut lines, ending) = begin(Stuck(held, told), CODE, || {}).expect("a thread");
    let half = vec![b'x'; BYTES_MAX / 2];
    for _ in 0..3 {
        lines.write_all(&half).expect("taken");
    }
    assert_eq!(dropped(&lines), 1);
    lines.write_all(b"small\n").expect("taken");
    assert_eq!(dropped(&lines), 2, "there is no room for this one either");
    drop(go);
    drop(ending);
    assert_eq!(written.iter().next(), Some(half));
    assert_eq!(lines.counts.bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn the_last_words_wait_for_room_and_no_longer_than_said() {
    let (go, held) = channel();
    let (told, written) = channel();
    let (lines, ending) = begin(Stuck(held, told), CODE, || {}).expect("a thread");
    // One is being written.
    for _ in 0..=LINES_MAX {
        let noise = || Item::Line(b"noise\n".to_vec());
        wait_until("there is room", || lines.put(noise()).is_ok());
    }
    let last = || Item::Line(b"last\n".to_vec());
    let begun = Instant::now();
    assert!(!lines.put_until(last(), begun + Duration::from_millis(50)));
    assert!(begun.elapsed() >= Duration::from_millis(50));
    let reader = thread::spawn(move || drop(go));
    assert!(lines.put_until(last(), Instant::now() + Duration::from_secs(20)));
    drop(ending);
    assert_eq!(written.iter().last().expect("written"), b"last\n");
    reader.join().expect("ended");
}

#[test]
fn the_end_waits_once_for_a_log_that_is_stuck() {
    let (_go, held) = channel();
    let (told, _written) = channel();
    let (mut lines, ending) = begin(Stuck(held, told), CODE, || {}).expect("a thread");
    lines.write_all(b"stuck\n").expect("taken");
    // The last words have waited.
    let until = lines.ends_by();
    lines.flush_until(until);
    assert!(Instant::now() >= until);
    let begun = Instant::now();
    drop(ending);
    assert!(begun.elapsed() < END_WAIT, "it waits a second time");
    assert_eq!(lines.ends_by(), until);
}

/// Set in the process that panics.
const PANICS: &str = "MIRROR_LOG_PANICS";
const TOLD: &str = "daemon: thread \"tests::a_panic_is_told_and_waits_for_no_log\" panicked at ";

/// The usual way would wait for the lock of standard error, which a thread that is stuck may hold.
#[test]
fn a_panic_is_told_and_waits_for_no_log() {
    if std::env::var_os(PANICS).is_some() {
        let error = standard_error().expect("a descriptor");
        let (mut lines, _ending) = begin(error, CODE, || {}).expect("a thread");
        tell_panics("daemon");
        lines.write_all(b"before\n").expect("taken");
        panic!("as it was told to");
    }
    let child = |log: Stdio| {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let name = "tests::a_panic_is_told_and_waits_for_no_log";
        command.args([name, "--exact", "--nocapture"]);
        command.env(PANICS, "1").stdout(Stdio::null()).stderr(log);
        command.spawn().expect("a child")
    };
    let mut told = child(Stdio::piped());
    let mut text = String::new();
    let mut error = told.stderr.take().expect("a pipe");
    error.read_to_string(&mut text).expect("text");
    assert!(!told.wait().expect("ended").success());
    let rest = text.strip_prefix("before\n").expect(&text);
    assert!(
        rest.starts_with(TOLD) && rest.contains("as it was told to"),
        "{text}"
    );

    let (_reader, mut writer) = io::pipe().expect("a pipe");
    let stuck = writer.try_clone().expect("a descriptor");
    // Larger than any pipe: it stays there.
    let filler = thread::spawn(move || writer.write_all(&vec![0; 4 << 20]));
    let mut stuck = child(Stdio::from(stuck));
    wait_until("it ends", || stuck.try_wait().expect("a child").is_some());
    assert!(!filler.is_finished(), "the log is stuck");
}
