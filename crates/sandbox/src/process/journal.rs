//! Where in a container's log each run begins and when it was written, and reading it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use futures::stream::{BoxStream, StreamExt};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::api::{ContainerLogs, LogLine, LogRequest};

/// Bytes that are read at a time.
const CHUNK: usize = 64 * 1024;
/// A longer line is handed out in pieces.
const LONGEST_LINE: usize = 1024 * 1024;
/// Most times that are remembered of a log; with more, every other one is forgotten.
const MOST_TIMES: usize = 16 * 1024;

/// The index of one container's log. Positions count the bytes since its first run; the files hold the last of them.
pub(super) struct Journal {
    path: PathBuf,
    marks: Mutex<Marks>,
    /// Told whenever there is more to read, or a run ends.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Marks {
    /// The position after the last byte.
    end: u64,
    /// The position of the first byte of the present file.
    base: u64,
    /// The position of the first byte of the file before it.
    older: Option<u64>,
    /// When what begins at a position was written.
    times: VecDeque<(u64, Timestamp)>,
    /// The positions where the present run and the one before it begin, and end if they have.
    runs: VecDeque<Run>,
    /// Whether the last run has ended and another one is to come.
    restarting: bool,
}

#[derive(Clone, Copy)]
struct Run {
    number: u64,
    begin: u64,
    end: Option<u64>,
}

impl Journal {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, marks: Mutex::default(), changed: watch::Sender::new(()) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Every change is complete when the lock is given back, so a panic elsewhere leaves the marks sound.
    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run begins; the file holds so many bytes already.
    pub(super) fn begin(&self, size: u64) {
        let mut marks = self.marks();
        if marks.runs.is_empty() {
            // Left by a pod of the same name.
            marks.end = size;
        }
        marks.base = marks.end.saturating_sub(size);
        marks.restarting = false;
        let (begin, number) = (marks.end, marks.runs.back().map_or(0, |last| last.number + 1));
        marks.runs.push_back(Run { number, begin, end: None });
        while marks.runs.len() > 2 {
            marks.runs.pop_front();
        }
    }

    /// So many bytes were written.
    pub(super) fn wrote(&self, bytes: u64, now: Timestamp) {
        let mut marks = self.marks();
        let begin = marks.end;
        marks.end += bytes;
        marks.times.push_back((begin, now));
        if marks.times.len() > MOST_TIMES {
            let mut keep = false;
            marks.times.retain(|_| {
                keep = !keep;
                keep
            });
        }
        drop(marks);
        self.changed.send_replace(());
    }

    /// Puts the file aside in place of an earlier one. Nobody reads meanwhile.
    pub(super) fn turn_over(&self) -> std::io::Result<()> {
        let mut marks = self.marks();
        std::fs::rename(&self.path, older(&self.path))?;
        let (base, end) = (marks.base, marks.end);
        (marks.older, marks.base) = (Some(base), end);
        while marks.times.get(1).is_some_and(|(position, _)| *position <= base) {
            marks.times.pop_front();
        }
        Ok(())
    }

    /// The present run has ended.
    pub(super) fn end(&self) {
        let mut marks = self.marks();
        let end = marks.end;
        if let Some(run) = marks.runs.back_mut() {
            run.end.get_or_insert(end);
        }
        drop(marks);
        self.changed.send_replace(());
    }

    /// The end of what the last run wrote: whole characters, at most so many bytes, without the blank lines around it.
    pub(super) fn last_words(&self, most: u64) -> String {
        let marks = self.marks();
        let Some(run) = marks.runs.back() else { return String::new() };
        let end = run.end.unwrap_or(marks.end);
        let begin = run.begin.max(marks.base).max(end.saturating_sub(most));
        let read = || {
            let mut file = std::fs::File::open(&self.path)?;
            file.seek(SeekFrom::Start(begin - marks.base))?;
            let mut words = Vec::new();
            file.take(end.saturating_sub(begin)).read_to_end(&mut words)?;
            std::io::Result::Ok(words)
        };
        // What was cut off at the front may leave a part of a character.
        let words = read().unwrap_or_default();
        let whole = words.iter().position(|byte| byte & 0xc0 != 0x80).unwrap_or(words.len());
        String::from_utf8_lossy(&words[whole..]).trim().to_owned()
    }

    /// Whether another run is to come.
    pub(super) fn set_restarting(&self, restarting: bool) {
        self.marks().restarting = restarting;
    }

    /// The wanted run.
    fn run(&self, previous: bool) -> Option<Run> {
        let marks = self.marks();
        let last = marks.runs.len().checked_sub(1)?;
        // Between two runs the last one is the one before the next.
        let wanted = if previous && !marks.restarting { last.checked_sub(1)? } else { last };
        marks.runs.get(wanted).copied()
    }

    /// What there is to read of the run of a number, from `position` on.
    fn read(&self, run: u64, position: u64) -> std::io::Result<Piece> {
        let marks = self.marks();
        let oldest = marks.older.unwrap_or(marks.base);
        let position = position.max(oldest);
        let known = marks.runs.iter().find(|known| known.number >= run);
        // One that is no longer known has ended before those that are.
        let limit = known.and_then(|known| if known.number == run { known.end } else { Some(known.begin) });
        let end = limit.unwrap_or(marks.end);
        let (path, start, until) = match marks.older {
            Some(start) if position < marks.base => (older(&self.path), start, marks.base.min(end)),
            _ => (self.path.clone(), marks.base, end),
        };
        let length = usize::try_from(until.saturating_sub(position)).unwrap_or(CHUNK).min(CHUNK);
        let mut bytes = vec![0; length];
        if length > 0 {
            let mut file = std::fs::File::open(path)?;
            file.seek(SeekFrom::Start(position - start))?;
            file.read_exact(&mut bytes)?;
        }
        let after = position + bytes.len() as u64;
        let before = marks.times.partition_point(|(begin, _)| *begin <= position).saturating_sub(1);
        let times = marks.times.range(before..).take_while(|(begin, _)| *begin < after.max(position + 1));
        Ok(Piece { position, bytes, times: times.copied().collect(), last: limit.is_some() && after >= end })
    }
}

/// A part of a run.
struct Piece {
    /// Where it begins: later than asked for when what was asked for is no longer there.
    position: u64,
    bytes: Vec<u8>,
    /// The times of what begins at these positions.
    times: Vec<(u64, Timestamp)>,
    /// Whether the run ends with it.
    last: bool,
}

fn older(path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".1");
    name.into()
}

/// Reads a run line by line.
struct Reader {
    journal: Arc<Journal>,
    run: u64,
    position: u64,
    follow: bool,
    changed: watch::Receiver<()>,
    /// The beginning of a line whose end has not been read, and its time.
    rest: BytesMut,
    rest_time: Option<Timestamp>,
    ready: VecDeque<LogLine>,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<LogLine> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            self.changed.mark_unchanged();
            let (journal, run, position) = (self.journal.clone(), self.run, self.position);
            let read = tokio::task::spawn_blocking(move || journal.read(run, position)).await;
            // The files go with the pod.
            let Ok(Ok(piece)) = read else { return None };
            let progress = !piece.bytes.is_empty();
            let end = piece.last || (!progress && !self.follow);
            self.enter(piece);
            if end {
                self.ended = true;
                self.flush();
            } else if !progress {
                // The sender lives in the journal.
                let _ = self.changed.changed().await;
            }
        }
    }

    fn enter(&mut self, piece: Piece) {
        if piece.position != self.position {
            self.flush();
        }
        let mut begin = piece.position;
        for line in piece.bytes.split_inclusive(|byte| *byte == b'\n') {
            let written = piece.times.iter().rev().find(|(position, _)| *position <= begin).map(|(_, time)| *time);
            if self.rest.is_empty() {
                self.rest_time = written;
            }
            self.rest.extend_from_slice(line);
            begin += line.len() as u64;
            if line.ends_with(b"\n") || self.rest.len() >= LONGEST_LINE {
                self.flush();
            }
        }
        self.position = begin;
    }

    fn flush(&mut self) {
        if !self.rest.is_empty() {
            let time = self.rest_time.take().unwrap_or(Timestamp::UNIX_EPOCH);
            self.ready.push_back(LogLine { time, text: self.rest.split().freeze() });
        }
    }
}

/// Namespace, pod and container, and the pod's uid.
type Name = (String, String, String, String);

/// The logs of all pods that are there. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Logs(Arc<Mutex<BTreeMap<Name, Arc<Journal>>>>);

impl Logs {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<Journal>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, name: [&str; 4], journal: Arc<Journal>) {
        self.all().insert(name.map(str::to_owned).into(), journal);
    }

    /// Forgets the logs of a pod.
    pub(super) fn forget(&self, uid: &str) {
        self.all().retain(|(.., of), _| of != uid);
    }
}

impl ContainerLogs for Logs {
    fn open(&self, request: &LogRequest) -> Option<BoxStream<'static, LogLine>> {
        let name = [&request.namespace, &request.pod, &request.container, &request.uid].map(Clone::clone);
        let journal = self.all().get(&Name::from(name))?.clone();
        let run = journal.run(request.previous)?;
        let reader = Reader {
            changed: journal.changed.subscribe(),
            journal,
            run: run.number,
            position: run.begin,
            follow: request.follow,
            rest: BytesMut::new(),
            rest_time: None,
            ready: VecDeque::new(),
            ended: false,
        };
        let lines = futures::stream::unfold(reader, |mut reader| async move {
            let line = reader.next().await?;
            Some((line, reader))
        });
        Some(lines.boxed())
    }
}

/// An empty log of a simulated pod, whose containers write nothing.
pub(crate) struct Silence;

impl ContainerLogs for Silence {
    fn open(&self, request: &LogRequest) -> Option<BoxStream<'static, LogLine>> {
        (!request.previous).then(|| futures::stream::empty().boxed())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn lines(text: &str) -> Vec<Bytes> {
        text.split_inclusive('\n').map(|line| Bytes::copy_from_slice(line.as_bytes())).collect()
    }

    fn request(previous: bool, follow: bool) -> LogRequest {
        let text = |text: &str| text.to_owned();
        let (namespace, pod, uid, container) = (text("default"), text("web"), text("1"), text("main"));
        LogRequest { namespace, pod, uid, container, previous, follow }
    }

    /// A log written by hand.
    struct Desk {
        journal: Arc<Journal>,
        logs: Logs,
        clock: i64,
    }

    impl Desk {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("tidemark-journal-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).unwrap();
            let journal = Arc::new(Journal::new(folder.join("main.log")));
            let logs = Logs::default();
            logs.add(["default", "web", "main", "1"], journal.clone());
            Self { journal, logs, clock: 0 }
        }

        fn begin(&self) {
            self.journal.begin(std::fs::metadata(self.journal.path()).map_or(0, |file| file.len()));
        }

        fn write(&mut self, text: &str) {
            use std::io::Write;
            self.clock += 1;
            let mut file = std::fs::File::options().create(true).append(true).open(self.journal.path()).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            self.journal.wrote(text.len() as u64, Timestamp::from_second(self.clock).unwrap());
        }

        async fn read(&self, previous: bool) -> Option<Vec<(i64, Bytes)>> {
            let lines = self.logs.open(&request(previous, false))?;
            Some(lines.map(|line| (line.time.as_second(), line.text)).collect().await)
        }
    }

    #[tokio::test]
    async fn each_run_is_read_by_itself_with_the_times_of_its_lines() {
        let mut desk = Desk::new("runs");
        assert!(desk.read(false).await.is_none(), "not started");
        desk.begin();
        desk.write("one\ntw");
        desk.write("o\nend");
        assert!(desk.read(true).await.is_none());
        desk.journal.end();
        desk.journal.set_restarting(true);
        let first = [(1, "one\n"), (1, "two\n"), (2, "end")].map(|(time, line)| (time, Bytes::from(line)));
        assert_eq!(desk.read(false).await.unwrap(), first);
        assert_eq!(desk.read(true).await.unwrap(), first, "the next run has not begun");
        desk.begin();
        desk.write("again\n");
        assert_eq!(desk.read(false).await.unwrap(), [(3, Bytes::from("again\n"))]);
        assert_eq!(desk.read(true).await.unwrap(), first);
    }

    #[tokio::test]
    async fn a_run_is_read_across_files_as_far_as_they_reach() {
        let mut desk = Desk::new("files");
        desk.begin();
        for text in ["a\n", "b\n", "c\n"] {
            desk.write(text);
            desk.journal.turn_over().unwrap();
        }
        desk.write("d\n");
        let read: Vec<_> = desk.read(false).await.unwrap().into_iter().map(|(_, line)| line).collect();
        assert_eq!(read, lines("c\nd\n"));
    }

    #[tokio::test]
    async fn the_last_words_are_those_of_the_last_run() {
        let mut desk = Desk::new("words");
        assert_eq!(desk.journal.last_words(100), "");
        desk.begin();
        desk.write("first\n");
        desk.journal.end();
        desk.begin();
        desk.write("äone\ntwo\n");
        assert_eq!(desk.journal.last_words(100), "äone\ntwo");
        assert_eq!(desk.journal.last_words(9), "one\ntwo");
        desk.journal.turn_over().unwrap();
        desk.write("three\n");
        assert_eq!(desk.journal.last_words(100), "three");
    }

    #[tokio::test]
    async fn a_follower_hears_of_later_lines_until_the_run_ends() {
        let mut desk = Desk::new("follow");
        desk.begin();
        desk.write("a\n");
        let mut followed = desk.logs.open(&request(false, true)).unwrap();
        assert_eq!(followed.next().await.unwrap().text, "a\n");
        desk.write("b\n");
        assert_eq!(followed.next().await.unwrap().text, "b\n");
        desk.write("rest");
        desk.journal.end();
        desk.begin();
        desk.write("of another run\n");
        assert_eq!(followed.next().await.unwrap().text, "rest");
        assert!(followed.next().await.is_none());
    }
}
